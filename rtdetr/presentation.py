"""How the metrics of RT-DETR are named in charts."""

from __future__ import annotations

TITLES = {
    "AP": ("AP, IoU 0.50 to 0.95", ""),
    "AP50": ("AP at IoU 0.50", ""),
    "AP75": ("AP at IoU 0.75", ""),
}
HEADLINE = ("AP", "AP50", "AP75", "AP_raw", "AP50_raw", "matched_iou", "F1", "threshold")
SPELLINGS = {"l1": "L1", "giou": "GIoU", "iou": "IoU", "ap": "AP", "ar": "AR"}
