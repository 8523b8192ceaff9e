"""Checkpoints: what is saved, compared and restored, and where a run starts from."""
