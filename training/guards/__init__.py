"""Checks that refuse or stop a run: before the start, at every update, of hangs."""
