"""Faults in reading, judging and storing detection data sets."""

from tests.mutants.fault import Fault

COCO, VOC, YOLO = (f"rtdetr/data/readers/{name}.py" for name in ("coco", "voc", "yolo"))
EXAMINE, PREPARATION, PREPARED = (
    f"rtdetr/data/{name}.py" for name in ("examine", "preparation", "prepared")
)
CLASSES, DOCTOR, SHAPES = "rtdetr/data/classes.py", "rtdetr/data/doctor.py", "rtdetr/synthetic.py"
READERS_TEST = "tests/rtdetr/data/readers_test.py"
TEST = "tests/rtdetr/data/preparation_test.py"
IMAGES_TEST = "tests/rtdetr/data/examine_test.py"

CHOICE, CHOICE_TEST = "rtdetr/data/class_choice.py", "tests/rtdetr/data/class_choice_test.py"

FAULTS = (
    Fault(
        "a merged class has two numbers",
        CHOICE,
        "numbers[number] = number_of.setdefault(new, number)",
        "numbers[number] = number_of[new] = number",
        CHOICE_TEST,
    ),
    Fault(
        "objects of classes that are not chosen go untold",
        CHOICE,
        "left_out[split.categories[item.category]] += 1",
        "pass",
        CHOICE_TEST,
    ),
    Fault(
        "crowds written as text are always crowds",
        COCO,
        'crowd = bool(_number(row, "iscrowd"))',
        'crowd = bool(row.get("iscrowd"))',
        READERS_TEST,
    ),
    Fault(
        "the first of two annotation files of a split is taken",
        COCO,
        "    if split in found:\n",
        "    if split in found and False:\n",
        READERS_TEST,
    ),
    Fault(
        "objects of an image that is not listed are lost",
        COCO,
        'findings += [("annotation_without_image"',
        'categories and [("annotation_without_image"',
        READERS_TEST,
    ),
    Fault(
        "a broken annotation file is lost",
        VOC,
        'findings.append(("bad_annotation_file", f"{path.name} is no XML file ({error})"))',
        "pass",
        READERS_TEST,
    ),
    Fault(
        "centers of YOLO are corners",
        YOLO,
        "(center_x - width / 2, center_y - height / 2, width, height)",
        "(center_x, center_y, width, height)",
        READERS_TEST,
    ),
    Fault(
        "category ids are labels",
        CLASSES,
        "{number: places[name] for number, name in categories.items() if name in places}",
        "{number: number for number, name in categories.items() if name in places}",
        TEST,
    ),
    Fault(
        "splits may name other classes",
        CLASSES,
        "        if other != names:\n",
        "        if other - names and names - other and False:\n",
        TEST,
    ),
    Fault(
        "boxes reach over the border",
        EXAMINE,
        "box = corners.clip(0, (width, height, width, height))",
        "box = corners",
        TEST,
    ),
    Fault(
        "boxes on stored pixels stay where they were",
        EXAMINE,
        "on_raw = orientation > 1 and image.size == raw_size != found.size",
        "on_raw = False and orientation > 1 and image.size == raw_size != found.size",
        IMAGES_TEST,
    ),
    Fault(
        "colors of 16 bits go untold",
        EXAMINE,
        "encoded[_PNG_BITS] == 16",
        "encoded[_PNG_BITS] == 17",
        IMAGES_TEST,
    ),
    Fault(
        "any share of faults is allowed",
        PREPARATION,
        "        if bad > settings.max_bad_fraction:\n",
        "        if bad > 1:\n",
        TEST,
    ),
    Fault(
        "what is held out depends on the order of the images",
        PREPARATION,
        "chosen = sorted(train.images, key=lambda image: _draw(image.name))",
        "chosen = list(train.images)",
        TEST,
    ),
    Fault(
        "duplicates are told by their bytes",
        PREPARATION,
        "first = examined.pixel_digest not in seen\n"
        "    other, name = seen.setdefault(examined.pixel_digest, (split.name, image.name))",
        "first = examined.digest not in seen\n"
        "    other, name = seen.setdefault(examined.digest, (split.name, image.name))",
        TEST,
    ),
    Fault(
        "objects belong to the image before",
        PREPARED,
        'part = slice(int(table["starts"][index]), int(table["starts"][index + 1]))',
        'part = slice(int(table["starts"][index - 1]), int(table["starts"][index]))',
        TEST,
    ),
    Fault(
        "faults are notes",
        DOCTOR,
        "return sum(f.count for kind, f in self.findings.items() if REMEDIES[kind][0])",
        "return sum(f.count for kind, f in self.findings.items() if not REMEDIES[kind])",
        "tests/rtdetr/prepare_command_test.py",
    ),
    Fault(
        "the drawn boxes are those of other shapes",
        SHAPES,
        "return _row((left, top, side, side), label, float(area), crowd=False)",
        "return _row((top, left, side, side), label, float(area), crowd=False)",
        "tests/rtdetr/synthetic_test.py",
    ),
)
