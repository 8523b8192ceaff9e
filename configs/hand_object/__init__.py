"""Recipes of the Gaussian splatting system."""
