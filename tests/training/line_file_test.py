"""Files that grow by lines: on a disk, and as segments in a bucket."""

from __future__ import annotations

import pytest

from training import line_file, storage


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lines_of(path):
    return line_file.read_text(path).splitlines()


def test_lines_come_back_in_order_and_later_ones_are_appended(place):
    path = place / "rows.jsonl"
    assert lines_of(path) == []
    for text in ("one", "zwei ä", "three"):
        file = line_file.open_lines(path)
        file.write(text)
        file.close()
    assert lines_of(path) == ["one", "zwei ä", "three"]


def test_flushed_lines_are_there_before_the_file_is_closed(place):
    file = line_file.open_lines(place / "rows.jsonl")
    for number in range(3):
        file.write(f"{number}")
    file.flush()
    assert lines_of(place / "rows.jsonl") == ["0", "1", "2"]
    file.close()


def test_segments_are_joined_filtered_and_removed(place, monkeypatch):
    monkeypatch.setattr(line_file, "SEGMENT_BYTES", 40)
    path = place / "rows.jsonl"
    file = line_file.open_lines(path)
    expected = [f"line {number:02}" for number in range(30)]
    for number, line in enumerate(expected):
        file.write(line)
        if number % 3 == 2:
            file.flush()
        if number == 14:  # another launch goes on in the last segment
            file.close()
            file = line_file.open_lines(path)
    file.close()
    assert lines_of(path) == expected
    names = [found.name for found in storage.list_folder(place)]
    assert len(names) == (1 if not storage.is_bucket(place) else 5)

    assert line_file.filter_lines(path, lambda line: line <= "line 07") == 22
    assert lines_of(path) == expected[:8]
    assert line_file.filter_lines(path, lambda line: line <= "line 07") == 0
    file = line_file.open_lines(path)
    file.write("line 08")
    file.close()
    assert lines_of(path) == expected[:9]

    line_file.remove(path)
    assert lines_of(path) == [] and storage.list_folder(place) == []


def test_lines_of_a_bucket_are_written_every_few_seconds_only(bucket, monkeypatch):
    writes = []
    replace = storage.replace_text
    monkeypatch.setattr(storage, "replace_text", lambda *a: (writes.append(a), replace(*a)))
    clock = Clock()
    file = line_file.open_lines(bucket / "rows.jsonl", clock)
    for _ in range(100):  # 0.5 s apart
        file.write("x")
        clock.now += 0.5
    assert len(writes) == 50 / line_file.FLUSH_SECONDS
    file.close()
    assert len(writes) == 50 / line_file.FLUSH_SECONDS + 1
    file.flush()  # nothing is new
    assert len(writes) == 50 / line_file.FLUSH_SECONDS + 1
    assert lines_of(bucket / "rows.jsonl") == ["x"] * 100


@pytest.mark.parametrize("content", ["", "whole\n", "whole\ntorn"])
def test_a_torn_line_of_a_disk_is_ended(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    file = line_file.open_lines(path)
    file.write("next")
    file.close()
    assert lines_of(path) == [*content.split(), "next"]
