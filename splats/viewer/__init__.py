"""`podvision view`: a trained scene, or one in training, in the browser (extra `viewer`)."""
