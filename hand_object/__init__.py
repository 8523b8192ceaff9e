"""Hand-object reconstruction: a hand and an unknown object from the frames of a video."""
