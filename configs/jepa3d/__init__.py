"""Recipes of the V-JEPA3D system."""
