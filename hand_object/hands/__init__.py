"""Hands: models, posing, joints, contact zones, sides, and where models come from."""
