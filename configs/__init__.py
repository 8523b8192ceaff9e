"""Recipes: one file per run that somebody would start."""
