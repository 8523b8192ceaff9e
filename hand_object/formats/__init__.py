"""Files of meshes and motion that other programs read."""
