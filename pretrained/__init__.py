"""Where do weights come from? Catalogue, cache, safe readers and converters, and the weights that ship."""
