"""Proofs that a run learns from its photographs, at the start and at every update."""
