"""What stands in for a detector's data in a preflight without them: COCO's numbers."""

from __future__ import annotations

from typing import Any

from rtdetr.config import Config

COCO_IMAGES, COCO_CLASSES = 118_287, 80


def stand_in(config: Config) -> tuple[dict[str, Any], int]:
    """Metadata of the task, and the number of training images."""
    count = config.model.classes or COCO_CLASSES
    names = [f"class {number}" for number in range(count)]
    return {"classes": names, "source_ids": list(range(count))}, COCO_IMAGES
