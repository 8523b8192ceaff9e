"""Which views train and which are held out. Names are kept, so that a run can prove its split.

A split is always mandatory: without held-out views the PSNR of a radiance field says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.errors import ConfigError
from training.settings import setting


@dataclass(frozen=True)
class SplitConfig:
    """How to choose the held-out views.

    `auto` takes the lists that the data set brings (Blender, nerfstudio) and `every_k` otherwise.
    """

    mode: str = setting("auto", choices=("auto", "every_k", "fraction", "file"))
    # every_k: names in sorted order, test where index % every == 0.
    every: int = setting(8, least=2)
    fraction: float = setting(0.8, above=0, below=1)  # fraction: share of the training views
    seed: int = setting(0, least=0, most=2**63 - 1)  # fraction: seed of the choice
    path: str | None = None  # file: JSON {"train": [...], "test": [...]} or one test name a line

    def __post_init__(self):
        if self.mode == "file" and not self.path:
            raise ConfigError("split.mode is 'file' and split.path is empty; name the list file.")


@dataclass(frozen=True)
class Split:
    """The chosen names, sorted; `mode` says how they were chosen."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    mode: str = "given"

    def __post_init__(self):
        check_split(self.train, self.test)

    def to_dict(self) -> dict:
        """Plain lists for a checkpoint or config.json."""
        return {"mode": self.mode, "train": list(self.train), "test": list(self.test)}

    @staticmethod
    def from_dict(content: dict) -> Split:
        """Inverse of `to_dict`."""
        return Split(tuple(content["train"]), tuple(content["test"]), content["mode"])


def check_split(train: Sequence[str], test: Sequence[str]) -> None:
    """ConfigError when the lists overlap, repeat a name, or either is empty."""
    both = sorted(set(train) & set(test))
    if both:
        raise ConfigError(
            f"{len(both)} views are in the training and in the test list (first: {both[0]}); each "
            "view may be in one list only."
        )
    for label, names in (("training", train), ("test", test)):
        if not names:
            raise ConfigError(
                f"The split leaves no {label} view; give the scene more images or choose another "
                "split.mode, split.every or split.fraction."
            )
        if len(set(names)) != len(names):
            raise ConfigError(f"The {label} list names a view twice; remove the repetition.")


def make_split(
    names: Sequence[str],
    choice: SplitConfig | Split,
    given: Mapping[str, Sequence[str]] | None = None,
    absent: Sequence[str] = (),
) -> Split:
    """The split of `names` by `choice`; a `Split` is checked against `names` and returned.

    `given` holds the data set's own lists ("train", "val", "test"); `absent` the names that the
    scene lists but whose images are missing: lists may name them, and they are left out.
    """
    names = sorted(names)
    if isinstance(choice, Split):
        return _restricted(names, choice.train, choice.test, choice.mode, ())
    if choice.mode == "file":
        return _from_file(names, Path(str(choice.path)), absent)
    if choice.mode == "fraction":
        return _by_fraction(names, choice)
    if choice.mode == "auto" and given:
        # Without a test list the validation list is held out: no view of it has been trained on.
        test = given.get("test") or given.get("val") or ()
        return _restricted(names, given.get("train", ()), test, "dataset", absent)
    test = tuple(names[:: choice.every])
    train = tuple(name for index, name in enumerate(names) if index % choice.every)
    return Split(train, test, "every_k")


def _by_fraction(names: Sequence[str], choice: SplitConfig) -> Split:
    order = np.random.default_rng(choice.seed).permutation(len(names))
    count = round(choice.fraction * len(names))
    train = sorted(names[int(index)] for index in order[:count])
    test = sorted(names[int(index)] for index in order[count:])
    return Split(tuple(train), tuple(test), "fraction")


def _restricted(
    names: Sequence[str],
    train: Sequence[str],
    test: Sequence[str],
    mode: str,
    absent: Sequence[str],
) -> Split:
    """Given lists without the absent names; ConfigError for names that the scene never had."""
    known = set(names)
    unknown = sorted(name for name in (*train, *test) if name not in known | set(absent))
    if unknown:
        raise ConfigError(
            f"The split names {len(unknown)} views that the scene lacks (first: "
            f"{unknown[0][:80]}); correct the list or restore the images."
        )
    keep_train = tuple(sorted(name for name in train if name in known))
    keep_test = tuple(sorted(name for name in test if name in known))
    return Split(keep_train, keep_test, mode)


def _from_file(names: Sequence[str], path: Path, absent: Sequence[str]) -> Split:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The split file {path} cannot be read: {error}.") from error
    if not text.lstrip().startswith("{"):
        test = [line.strip() for line in text.splitlines() if line.strip()]
        train = [name for name in names if name not in set(test)]
        return _restricted(names, train, test, "file", absent)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The split file {path} is not valid JSON: {error}.") from error
    lists = [content.get("train"), content.get("test")]
    if not all(isinstance(part, list) and all(isinstance(n, str) for n in part) for part in lists):
        raise ConfigError(f"The split file {path} needs the name lists 'train' and 'test'.")
    return _restricted(names, lists[0], lists[1], "file", absent)
