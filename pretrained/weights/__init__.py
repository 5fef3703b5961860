"""The weights that ship with the toolkit, each with a model card."""
