"""How good detections are: numpy in, numbers out, the same on every host."""
