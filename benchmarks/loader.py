"""Reading examples: how far threads and reader processes scale, on photographs and on OCT records.

Photographs are synthetic JPEG files of 640 x 480 pixels, decoded, resized to 640 x 640 and flipped
at random, as a detector's host side does; records are synthetic OCT volumes, written and prepared
by the program itself. Every setting reads the same examples by the readers of the training stream;
nothing is put on a device. Settings are measured in turn, several rounds, and the best round of
each counts, because the machine may be busy. Processes have started before. "CPU ms here" is what
an example costs the process that trains, whatever else the machine does.

Run: python benchmarks/loader.py [--examples 256] [--rounds 3] [--threads 1 2 4] [--processes 1 2]
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import dataclasses
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# This file lies beside the packages that it measures: look for them one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from PIL import Image

from training.reading import ReadAhead, Readers

SIDE = 640  # pixels of a photograph as the model sees it
GROUP = 16  # examples of a batch
VOLUME, PATCH = (64, 384, 384), (4, 16, 16)  # voxels


@dataclasses.dataclass(frozen=True)
class Photographs:
    """JPEG files by index, augmented by position."""

    folder: str
    length: int

    fingerprint = "photographs"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        with Image.open(f"{self.folder}/{index}.jpg") as image:
            resized = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return {"image": np.asarray(resized)}

    def load(self, index: int, position: int) -> dict[str, np.ndarray]:
        image = self[index]["image"]
        flip = np.random.default_rng(position).random() < 0.5
        return {"image": np.ascontiguousarray(image[:, ::-1]) if flip else image}

    def identity(self, index: int) -> str:
        return str(index)


def photographs(folder: Path, count: int = 64) -> Photographs:
    """Writes smooth images with some noise, of the size in bytes of real photographs."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        pixels = np.asarray(small.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(pixels + generator.integers(-12, 13, pixels.shape), 0, 255)
        file = io.BytesIO()
        Image.fromarray(noisy.astype(np.uint8)).save(file, "JPEG", quality=90)
        (folder / f"{index}.jpg").write_bytes(file.getvalue())
    return Photographs(str(folder), count)


def records(folder: Path) -> Any:
    """Synthetic volumes of four scanners, prepared."""
    from jepa3d.config import PrepareSettings
    from jepa3d.data.prepare import prepare
    from jepa3d.data.source import VolumeSource
    from jepa3d.synthetic import write_tree

    write_tree(folder / "files", participants=3, faulty_files=False)
    settings = PrepareSettings(shape=VOLUME, patch=PATCH, eval_fraction=0.0, workers=0)
    prepare(folder / "files", folder / "records", settings)
    return VolumeSource(folder / "records", "train")


def seconds(readers: Readers, source: Any, examples: int) -> tuple[float, float]:
    """Wall seconds and CPU seconds of this process for so many examples."""
    groups = [range(i, i + GROUP) for i in range(0, examples, GROUP)]
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in ReadAhead(
        readers, groups, lambda position: readers.load(position % len(source), position)
    ):
        pass
    return time.perf_counter() - start, time.process_time() - cpu_start


def report(name: str, source: Any, arguments: argparse.Namespace) -> None:
    """Measures all settings in turn and prints a table."""
    settings = [(count, 0) for count in arguments.threads]
    settings += [(0, count) for count in arguments.processes]
    readers = {setting: Readers(source, *setting) for setting in settings}
    best = dict.fromkeys(settings, float("inf"))
    cpu = dict.fromkeys(settings, float("inf"))
    for setting in settings:  # starts the processes, opens the files
        seconds(readers[setting], source, GROUP * max(setting))
    for _ in range(arguments.rounds):
        for setting in settings:
            time.sleep(arguments.pause)
            taken, used = seconds(readers[setting], source, arguments.examples)
            best[setting] = min(best[setting], taken)
            cpu[setting] = min(cpu[setting], used)
    for one in readers.values():
        one.close()
    size = sum(np.asarray(value).nbytes for value in source[0].values())
    print(f"\n{name}, {size / 1e6:.2f} MB an example")
    print(f"{'readers':<14} {'examples/s':>10} {'to one thread':>14} {'CPU ms here':>12}")
    for threads, processes in settings:
        taken = best[threads, processes]
        label = f"{processes} processes" if processes else f"{threads} threads"
        ratio = best[settings[0]] / taken
        rate, used = arguments.examples / taken, 1e3 * cpu[threads, processes] / arguments.examples
        print(f"{label:<14} {rate:>10.1f} {ratio:>13.2f}x {used:>12.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Examples per second against readers.")
    parser.add_argument("--examples", type=int, default=256, help="read in each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    # A machine that others work on gives a short burst after a rest what a quiet one always gives.
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before each measurement")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4], help="1 comes first")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        report("JPEG photographs", photographs(Path(folder, "jpeg")), arguments)
        report("OCT records", records(Path(folder)), arguments)


if __name__ == "__main__":
    main()
