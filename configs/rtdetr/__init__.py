"""Recipes of RT-DETR."""
