"""How does a code become an image? Generator networks, their ops, and the latent types."""
