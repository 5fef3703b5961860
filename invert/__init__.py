"""What does a user do? Photo in, latent code, edits, photo out; the command line is a thin layer over this package."""
