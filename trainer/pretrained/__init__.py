"""Weights that come from a directory of another project, and go to one: Hugging Face's layout."""
