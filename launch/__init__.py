"""The `podvision` commands."""
