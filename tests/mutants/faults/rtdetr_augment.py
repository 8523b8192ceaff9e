"""Faults in how photographs are decoded, placed on canvases and changed at random."""

from tests.mutants.fault import Fault

DECODE, GEOMETRY, PICTURE = (f"rtdetr/data/{name}.py" for name in ("decode", "geometry", "picture"))
COLOR, CROP, MOSAIC, MIXUP = (
    f"rtdetr/data/{name}.py" for name in ("color", "crop", "mosaic", "mixup")
)
AUGMENT, SOURCE, SCALES = (f"rtdetr/data/{name}.py" for name in ("augment", "source", "scales"))
TESTS = "tests/rtdetr/data"

FAULTS = (
    Fault(
        "what cannot be decoded is black",
        DECODE,
        '    if pixels is None:\n        raise _unreadable(name, "it is damaged or was cut off")\n',
        "    if pixels is None:\n        return np.zeros((64, 64, 3), np.uint8)\n",
        f"{TESTS}/decode_test.py",
    ),
    Fault(
        "red and blue are exchanged",
        DECODE,
        "cv2.IMREAD_COLOR_RGB",
        "cv2.IMREAD_COLOR",
        f"{TESTS}/decode_test.py",
    ),
    Fault(
        "photographs lie on their side",
        DECODE,
        "upright = ImageOps.exif_transpose(opened)",
        "upright = opened",
        f"{TESTS}/decode_test.py",
    ),
    Fault(
        "boxes on a letterbox are normalized by the content",
        GEOMETRY,
        "return xyxy_px(moved, np.asarray(self.canvas, corners.dtype)).normalized()",
        "return xyxy_px(moved, np.asarray(self.content, corners.dtype)).normalized()",
        f"{TESTS}/geometry_test.py",
    ),
    Fault(
        "boxes are mirrored in the canvas and pixels in the content",
        GEOMETRY,
        "x, dx = -x, self.content[1] - dx",
        "x, dx = -x, self.canvas[1] - dx",
        f"{TESTS}/geometry_test.py",
    ),
    Fault(
        "predictions reach beyond the image",
        GEOMETRY,
        "moved = np.clip(_ordered((on_canvas - offset) / scale), 0, limits)",
        "moved = _ordered((on_canvas - offset) / scale)",
        f"{TESTS}/geometry_test.py",
    ),
    Fault(
        "shrinking aliases",
        PICTURE,
        "if height < pixels.shape[0] or width < pixels.shape[1]:",
        "if height < pixels.shape[0] and width < 0:",
        f"{TESTS}/augment_test.py",
    ),
    Fault(
        "objects keep the part that was cut off",
        PICTURE,
        "cut[:, 0::2] = cut[:, 0::2].clip(place.source.left, place.source.right)",
        "cut[:, 0::2] = cut[:, 0::2].clip(0, place.image[1])",
        f"{TESTS}/augment_test.py",
    ),
    Fault(
        "slivers stay objects",
        PICTURE,
        "kept = (sides >= LEAST_SIDE).all(axis=1)",
        "kept = (sides >= 0).all(axis=1)",
        f"{TESTS}/augment_test.py",
    ),
    Fault(
        "hue stops at the end of its circle",
        COLOR,
        "hsv[..., 0] += np.uint8(round(turns * 256) % 256)",
        "hsv[..., 0] = np.clip(hsv[..., 0] + round(turns * 256), 0, 255)",
        f"{TESTS}/color_test.py",
    ),
    Fault(
        "a crop takes any object's overlap, also of one outside",
        CROP,
        "iou_TxN = np.where(inside_TxN, _iou(crops_Tx4, corners_Nx4), -1.0)",
        "iou_TxN = _iou(crops_Tx4, corners_Nx4)",
        f"{TESTS}/window_test.py",
    ),
    Fault(
        "a mosaic is half a pixel off",
        MOSAIC,
        "centers[:, 2] += matrix_2x3[:, :2] @ (0.5, 0.5) - 0.5",
        "centers[:, 2] += 0.0",
        f"{TESTS}/mosaic_test.py",
    ),
    Fault(
        "turned boxes follow one diagonal only",
        MOSAIC,
        "x, y = corners_Nx4[:, [0, 2, 2, 0]], corners_Nx4[:, [1, 1, 3, 3]]",
        "x, y = corners_Nx4[:, [0, 2, 2, 0]], corners_Nx4[:, [1, 3, 3, 1]]",
        f"{TESTS}/mosaic_test.py",
    ),
    Fault(
        "mixup forgets the objects of the second image",
        MIXUP,
        "return Canvas(pixels, content, boxes, np.concatenate([first.labels, second.labels]))",
        "return Canvas(pixels, content, first.boxes, first.labels)",
        f"{TESTS}/mosaic_test.py",
    ),
    Fault(
        "strong changes never end",
        AUGMENT,
        "if plan.strong:",
        "if True:",
        f"{TESTS}/augment_test.py {TESTS}/source_test.py",
    ),
    Fault(
        "an example depends on its image instead of its position",
        SOURCE,
        "np.random.default_rng([self._seed, _DRAW, position])",
        "np.random.default_rng([self._seed, _DRAW, index])",
        f"{TESTS}/source_test.py",
    ),
    Fault(
        "a damaged file is counted for every mosaic that it was drawn for",
        SOURCE,
        "_DRAWS_OF_A_PARTNER = 10",
        "_DRAWS_OF_A_PARTNER = 1",
        f"{TESTS}/stream_test.py",
    ),
    Fault(
        "crowds are targets",
        SOURCE,
        "single = ~objects.crowd",
        "single = objects.crowd | True",
        f"{TESTS}/source_test.py",
    ),
    Fault(
        "the smallest of too many objects stay",
        SOURCE,
        'np.argsort(-areas, kind="stable")',
        'np.argsort(areas, kind="stable")',
        f"{TESTS}/source_test.py",
    ),
    Fault(
        "every example draws a canvas of its own",
        SOURCE,
        "self._plan(position // self._batch_size)",
        "self._plan(position)",
        f"{TESTS}/source_test.py",
    ),
    Fault(
        "multi-scale never ends",
        SCALES,
        "if not config.scales or not inside(config.scale_phase, update, total_updates):",
        "if not config.scales:",
        f"{TESTS}/scales_test.py",
    ),
)
