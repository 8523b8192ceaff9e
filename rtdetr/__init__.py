"""RT-DETR: a real-time detector, trained on COCO or on your own images."""
