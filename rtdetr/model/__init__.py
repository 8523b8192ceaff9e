"""The network of RT-DETR."""
