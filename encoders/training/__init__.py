"""How does an encoder learn? Data, losses and the loop."""
