"""Data sets as others store them."""
