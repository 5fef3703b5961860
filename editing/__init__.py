"""How does a code become another code? Directions, mixing, interpolation, spatial blending."""
