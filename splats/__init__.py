"""3D Gaussian splatting: a radiance field from a COLMAP scene."""
