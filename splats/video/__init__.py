"""Camera paths, and frames along them as a video."""
