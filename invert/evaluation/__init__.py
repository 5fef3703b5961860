"""How good is a method over many faces? Every face measured once, every figure kept, means with their intervals."""
