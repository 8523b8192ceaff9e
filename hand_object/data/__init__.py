"""Sequences of frames: reading, checking, writing."""
