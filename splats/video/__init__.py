"""Camera paths, along which frames are rendered."""
