"""The plain example against the image processor of transformers: pixels and boxes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from rtdetr.boxes import xywh_px
from rtdetr.data.decode import decode
from rtdetr.data.geometry import placement
from rtdetr.data.picture import painted, resized

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def processor():
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

    return RTDetrImageProcessorPil(size={"height": 320, "width": 512})


def test_pixels_and_boxes_are_those_of_transformers(processor, data_root):
    folder = data_root / "detector" / "tiny_coco"
    content = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    for image in content["images"][:6]:
        path = folder / "val2017" / image["file_name"]
        found = [
            a for a in content["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]
        ]
        theirs = processor(
            images=Image.open(path).convert("RGB"),
            annotations={"image_id": image["id"], "annotations": found},
            return_tensors="np",
        )
        size = image["height"], image["width"]
        place = placement(size, (320, 512), "squash")
        ours = painted(decode(path.read_bytes(), path.name), place, fill=0)
        their_pixels = np.asarray(theirs["pixel_values"][0]).transpose(1, 2, 0) * 255
        # Both decode by libjpeg, in versions that may enlarge chroma in other ways.
        assert np.abs(ours - their_pixels).mean() < 0.5
        boxes = np.array([a["bbox"] for a in found], float).reshape(-1, 4)
        our_boxes = place.to_canvas(xywh_px(boxes, np.array(size))).values
        their_boxes = np.asarray(theirs["labels"][0]["boxes"]).reshape(-1, 4)
        np.testing.assert_allclose(our_boxes, their_boxes, atol=1e-6)


@pytest.mark.parametrize("size", [(640, 640), (100, 130), (700, 90)])
def test_resizing_is_that_of_torch_with_antialiasing(size):
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
    theirs = torch.nn.functional.interpolate(
        tensor, size=size, mode="bilinear", antialias=True, align_corners=False
    )
    # Two passes on bytes, each rounded, against one in floating point.
    difference = resized(image, size) - theirs[0].numpy().transpose(1, 2, 0)
    assert np.abs(difference).max() <= 1.5
