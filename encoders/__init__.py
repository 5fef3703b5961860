"""How does an image become a code? Encoders and their backbones; ``training`` teaches them."""
