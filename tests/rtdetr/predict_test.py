"""`podvision predict`: the detections of evaluation, on images, folders and videos."""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from rtdetr import inference
from rtdetr.boxes import xywh_px
from rtdetr.evaluation import evaluate
from rtdetr.pictures_in import image_ids, open_input
from rtdetr.predict import add_arguments, check_arguments, predict
from rtdetr.scoring.coco_ap import score
from rtdetr.scoring.found import overlap
from tests.rtdetr import color_detector
from tests.rtdetr.color_detector import config_of, layout_of, source_of, state_of
from tests.rtdetr.data.memory_dataset import blocks
from tests.rtdetr.scoring.sample import found_of
from training.errors import ConfigError, InputError


@pytest.fixture(autouse=True)
def fake_network(monkeypatch):
    monkeypatch.setattr(inference, "detect", color_detector.detect)


DATASET = blocks(7)


@pytest.fixture
def folder(tmp_path):
    """The images of the data set as files, in its order."""
    path = tmp_path / "images"
    (path / "inner").mkdir(parents=True)
    for i, entry in enumerate(DATASET.entries):
        (path / ("inner" if i > 5 else "") / f"picture_{i}.png").write_bytes(entry.encoded)
    return path


@pytest.fixture
def run(tmp_path):
    """Runs the command on a path with further arguments; returns its lines."""

    def predicted(source, *arguments, config=None, devices=1):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        given = ["--input", source, "--output", tmp_path / "out", *arguments]
        args = parser.parse_args([str(one) for one in given])
        args.workdir = str(tmp_path / "run")
        check_arguments(args)
        task = SimpleNamespace(config=config or config_of(), classes=DATASET.classes)
        layout = layout_of(devices)
        with jax.set_mesh(layout.mesh):
            return predict(SimpleNamespace(task=task, layout=layout), state_of(), 5, args)

    return predicted


def results(tmp_path):
    return json.loads((tmp_path / "out" / "detections.json").read_text())


def order(tmp_path):
    """Image ids in the order of the data set."""
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    by_name = {image["file_name"].rpartition("_")[2]: image["id"] for image in images}
    return [by_name[f"{i}.png"] for i in range(len(DATASET))]


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("resize", ["letterbox", "squash"])
def test_average_precision_from_its_json_is_that_of_evaluation(
    run, folder, tmp_path, resize, devices
):
    config = config_of(resize)
    run(folder, config=config, devices=devices)
    rows, ids = results(tmp_path), DATASET.classes.source_ids
    found = []
    for number in order(tmp_path):
        own = [row for row in rows if row["image_id"] == number]
        labels = [ids.index(row["category_id"]) for row in own]
        found.append(found_of([r["bbox"] for r in own], labels, [r["score"] for r in own]))
    objects = [DATASET.objects(i) for i in range(len(DATASET))]
    layout = layout_of()
    with jax.set_mesh(layout.mesh):
        wanted = evaluate(config, DATASET.classes, state_of(), source_of(DATASET, config), layout)
    again = score(found, objects, 3).metrics
    assert again["AP"] > 0.2
    assert {name: wanted.metrics[name] for name in again} == pytest.approx(again, abs=1e-6)


def test_pycocotools_takes_the_file_as_it_is(run, folder, tmp_path):
    from pycocotools.coco import COCO

    run(folder)
    truth = COCO()
    truth.dataset = json.loads((tmp_path / "out" / "images.json").read_text())
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "out" / "detections.json"))
    assert len(loaded.anns) == len(results(tmp_path))
    assert {c["name"] for c in truth.dataset["categories"]} == set(DATASET.classes.names)


def test_boxes_are_left_top_width_height_with_the_ids_of_the_data(run, folder, tmp_path):
    run(folder / "picture_0.png", "--keep", "0.5")
    (entry, size) = DATASET.entries[0], DATASET.size(0)
    rows = results(tmp_path)
    assert {row["category_id"] for row in rows} == {label + 1 for label in entry.labels}
    for row in rows:
        x, y, w, h = row["bbox"]
        assert x >= 0 and x + w <= size[1] + 1e-4 and y >= 0 and y + h <= size[0] + 1e-4
        assert row["category"] == DATASET.classes.names[row["category_id"] - 1]
    alone = [label for label in entry.labels if list(entry.labels).count(label) == 1]
    assert alone
    for label in alone:
        (row,) = [row for row in rows if row["category_id"] == label + 1]
        truth = xywh_px(np.array(entry.boxes[entry.labels.index(label)], float), np.array(size))
        np.testing.assert_allclose(row["bbox"], truth.values, atol=2)


def test_a_threshold_is_for_drawing_only(run, folder, tmp_path):
    run(folder, "--threshold", "1.0")
    assert len(results(tmp_path)) == 7 * 9
    source = np.asarray(Image.open(folder / "picture_0.png"))
    drawn = tmp_path / "out" / "drawn" / "picture_0.png"
    np.testing.assert_array_equal(np.asarray(Image.open(drawn)), source)
    run(folder, "--threshold", "0.3")
    assert (np.asarray(Image.open(drawn)) != source).any()
    assert (tmp_path / "out" / "drawn" / "inner" / "picture_6.png").exists()


def test_the_threshold_of_the_last_evaluation_is_taken(run, folder, tmp_path):
    assert "0.50 (the default" in run(folder)[-1]
    (tmp_path / "run" / "eval").mkdir(parents=True)
    for step, threshold in [(3, 0.2), (4, 0.31), (9, 0.8)]:
        text = json.dumps({"step": step, "threshold": threshold})
        (tmp_path / "run" / "eval" / f"{step}.json").write_text(text)
    assert "0.31 (the best F1" in run(folder)[-1]  # step 9 is later than these weights


def test_fewer_detections_are_the_best_ones(run, folder, tmp_path):
    run(folder / "picture_0.png")
    every = results(tmp_path)
    run(folder / "picture_0.png", "--top", "2")
    assert results(tmp_path) == sorted(every, key=lambda row: -row["score"])[:2]


def test_unreadable_images_are_told_and_counted(run, folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("x")
    lines = run(folder)
    assert any(line.startswith("skipped: ") and "broken.jpg" in line for line in lines)
    assert "1 of 8 images were skipped" in lines
    assert "1 files without an image's ending were left out" in lines
    assert len({row["image_id"] for row in results(tmp_path)}) == 7


def test_nothing_readable_is_an_error(run, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"bad\.jpg"):
        run(tmp_path / "bad.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        run(tmp_path / "empty")


def test_its_own_output_is_not_read_again(run, folder, tmp_path):
    output = folder / "out"
    assert len(open_input(folder, output)) == 7
    output.mkdir()
    (output / "drawn.png").write_bytes(DATASET.entries[0].encoded)
    assert len(open_input(folder, output)) == 7


def test_a_video_is_drawn_frame_by_frame(run, tmp_path):
    file = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (96, 64))
    for step in range(11):
        frame = np.full((64, 96, 3), 120, np.uint8)
        frame[20:50, 10 + 4 * step : 40 + 4 * step] = color_detector.COLORS[2][::-1]  # BGR
        writer.write(frame)
    writer.release()
    lines = run(file, "--keep", "0.5")
    assert "11 images" in lines[-1] and len(lines) == 1
    lefts = [row["bbox"][0] for row in results(tmp_path) if row["category"] == "blue"]
    np.testing.assert_allclose(np.diff(lefts), 4, atol=1.5)
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "drawn" / "film.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 11 and drawn.get(cv2.CAP_PROP_FPS) == 10
    there, first = drawn.read()
    assert there and first.shape == (64, 96, 3)


def test_a_file_that_is_no_video_is_refused(run, tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="cannot be opened"):
        run(tmp_path / "film.mp4")


def test_ids_come_from_annotations_from_names_or_from_the_order(tmp_path):
    assert image_ids(["b.png", "a.png"], None) == [1, 2]
    assert image_ids(["000139.jpg", "000285.jpg"], None) == [139, 285]
    assert image_ids(["1.jpg", "01.png"], None) == [1, 2]  # two names of one number
    file = tmp_path / "truth.json"
    file.write_text(json.dumps({"images": [{"id": 77, "file_name": "b.png"}]}))
    assert image_ids(["in/b.png"], file) == [77]
    with pytest.raises(InputError, match="names no image"):
        image_ids(["c.png"], file)
    file.write_text("[]")
    with pytest.raises(InputError, match="is no COCO file"):
        image_ids(["b.png"], file)


@pytest.mark.parametrize(
    "wrong",
    [["--threshold", "1.5"], ["--keep", "-1"], ["--top", "0"], ["--queries", "-3"]],
    ids=lambda x: x[0],
)
def test_numbers_that_cannot_be_are_refused(run, folder, wrong):
    with pytest.raises(ConfigError, match=wrong[0]):
        run(folder, *wrong)


def test_more_layers_than_there_are_are_refused(run, folder):
    with pytest.raises(ConfigError, match="this network has 6 decoder layers"):
        run(folder, "--layers", "7")


def test_tiles_find_the_small_objects_of_a_large_picture(run, tmp_path):
    """Blocks of 12 px on 480 x 640: on the whole picture their colors run into one box each."""
    pixels, boxes = np.full((480, 640, 3), 120, np.uint8), []
    for row in range(4):
        for column in range(5):
            y, x = 120 * row + 54, 128 * column + 60
            color = color_detector.COLORS[(row + column) % 3]
            pixels[y : y + 12, x : x + 12] = color
            boxes.append((x, y, 12, 12, (row + column) % 3))
    Image.fromarray(pixels).save(tmp_path / "large.png")
    size = np.array([480, 640])

    def recall(*arguments):
        run(tmp_path / "large.png", "--keep", "0.5", "--top", "200", *arguments)
        rows = results(tmp_path)
        hits = 0
        for *box, label in boxes:
            own = [row["bbox"] for row in rows if row["category_id"] == label + 1]
            if own:
                values = xywh_px(np.array(own), size).corners().values
                truth = xywh_px(np.array([box], float), size).corners().values
                hits += bool((overlap(values, truth) >= 0.5).any())
        return hits / len(boxes), len(rows)

    assert recall()[0] == 0
    found, count = recall("--tile", "100", "--overlap", "0.3")
    # One box each, and the three of the whole picture.
    assert found == 1 and count <= len(boxes) + 3
