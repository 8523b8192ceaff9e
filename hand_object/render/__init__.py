"""Rendering: rays, samples along them, nodes that move, and their composition to pixels."""
