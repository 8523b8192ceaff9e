"""The metric writer of a run: `metrics.jsonl` is the truth, W&B and TensorBoard mirror it.

`metrics.jsonl` holds one JSON object per line: `step` (int) and metric names with their values. A
step may have several lines (training, then evaluation); `read_metrics` merges them. Steps never
fall: on resume the lines after the resumed step are dropped. JSON has no non-finite numbers, so
they are written as the strings "NaN", "Infinity" and "-Infinity" and read back as floats.
In a bucket the lines of the last seconds are in memory until `flush`, which belongs before a save.

Every process creates a writer; those with `main=False` write pictures only. This is the only module
that imports wandb, and neither wandb nor tensorboardX is imported unless the config asks for it.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from etils import epath
from PIL import Image

from training import line_file, storage
from training.config import LogConfig
from training.errors import ConfigError
from training.line_file import LineFile, Nowhere
from training.storage import PathLike

METRICS_FILE = "metrics.jsonl"
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Mirror(Protocol):
    """Another place that receives what the JSONL file receives."""

    name: str
    errors: tuple[type[Exception], ...]  # what it raises when it is out of order

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None: ...

    def alert(self, title: str, text: str) -> None: ...

    def close(self) -> None: ...


class MetricWriter:
    """Writes the metrics of a run in the main process, and pictures in every one."""

    def __init__(
        self,
        workdir: PathLike,
        config: LogConfig,
        run_name: str,
        config_json: Mapping[str, Any],
        main: bool,
        resumed_step: int | None = None,
    ):
        """Opens the writer.

        Args:
          workdir: the work folder; created if absent.
          config: which mirrors are on.
          run_name: name shown by W&B.
          config_json: the resolved config as JSON-compatible values, shown by W&B.
          main: whether this process writes.
          resumed_step: step of the restored checkpoint; lines after it are dropped. None is a
            fresh start: lines of an earlier attempt that left no checkpoint are dropped.

        Raises:
          ConfigError: a mirror is on and its package is not installed, or it cannot write there.
        """
        self.workdir = storage.as_path(workdir)
        self.dropped_lines = 0
        self._main = main
        self._file: LineFile = Nowhere()
        self._mirrors: list[Mirror] = []
        self._last_step = -1
        if not main:
            return
        path = self.workdir / METRICS_FILE
        self.dropped_lines = drop_lines_after(path, -1 if resumed_step is None else resumed_step)
        self._file = line_file.open_lines(path)
        if config.tensorboard:
            self._open_mirror(lambda: TensorBoardMirror(self.workdir), (OSError,), "TensorBoard")
        if config.wandb:
            errors = _wandb_errors()
            self._open_mirror(
                lambda: WandbMirror(self.workdir, config.wandb_project, run_name, config_json),
                errors,
                "W&B",
            )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line.

        Raises:
          ValueError: `step` is smaller than the step of an earlier line.
        """
        if not self._main:
            return
        if step < self._last_step:
            raise ValueError(f"metrics of step {step} come after those of step {self._last_step}")
        self._last_step = step
        numbers = {name: float(value) for name, value in values.items()}
        self._file.write(encode_json({"step": int(step), **numbers}))
        self._each_mirror(lambda mirror: mirror.write(step, numbers))

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes this process's own pictures, see `save_images`; the mirrors get the main one's."""
        save_images(self.workdir, step, images)
        self._each_mirror(lambda mirror: mirror.write_images(step, images))

    def alert(self, title: str, text: str) -> None:
        """Tells whoever watches the run in a mirror, where the mirror has a way to."""
        self._each_mirror(lambda mirror: mirror.alert(title, text))

    def flush(self) -> None:
        """Returns once every line is in `metrics.jsonl`."""
        self._file.flush()

    def close(self) -> None:
        """Flushes and closes everything; the writer must not be used afterwards."""
        self._file.close()
        self._each_mirror(lambda mirror: mirror.close())
        self._mirrors = []

    def _open_mirror(
        self, create: Callable[[], Mirror], errors: tuple[type[Exception], ...], name: str
    ) -> None:
        try:
            self._mirrors.append(create())
        except errors as error:
            _say_mirror_lost(name, error)

    def _each_mirror(self, use: Callable[[Mirror], None]) -> None:
        """A mirror that fails is said once and left; the JSONL file goes on."""
        # A copy, because a mirror that fails is removed in the loop.
        for mirror in tuple(self._mirrors):
            try:
                use(mirror)
            except mirror.errors as error:
                self._mirrors.remove(mirror)
                _say_mirror_lost(mirror.name, error)


def save_images(workdir: PathLike, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes uint8 `[height, width, 3]` (or `[height, width]`) to `artifacts/<step>/*.png`.

    Every process calls it with the pictures that it has, of names that no other uses.
    """
    folder = storage.as_path(workdir) / "artifacts" / str(step)
    for name, pixels in images.items():
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        storage.replace_bytes(folder / f"{name.replace('/', '_')}.png", file.getvalue())


class TensorBoardMirror:
    """Event files under `workdir/tensorboard`, written by tensorboardX."""

    name = "TensorBoard"
    errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, workdir: epath.Path):
        if storage.is_bucket(workdir):
            raise ConfigError(
                f"config.log.tensorboard cannot write into {workdir}, because its event files grow "
                "and objects of a bucket do not; set it to False and use podvision report"
            )
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "config.log.tensorboard is on but tensorboardX is not installed; "
                "run `pip install tensorboardX` or set it to False"
            ) from error
        self._writer = SummaryWriter(logdir=str(workdir / "tensorboard"), write_to_disk=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, pixels in images.items():
            layout = "HWC" if pixels.ndim == 3 else "HW"
            self._writer.add_image(name, pixels, step, dataformats=layout)

    def alert(self, title: str, text: str) -> None:
        """Nothing: TensorBoard sends no messages."""

    def close(self) -> None:
        self._writer.close()


class WandbMirror:
    """One W&B run per work folder, offline unless WANDB_API_KEY is set.

    The run id lies in `workdir/wandb_id.txt`, so that a resumed job continues the same run. The
    step is logged as a metric and used as the x axis: W&B's own step would drop what is logged
    again after a resume.
    """

    name = "W&B"

    def __init__(
        self, workdir: epath.Path, project: str, run_name: str, config_json: Mapping[str, Any]
    ):
        self._wandb = _import_wandb()
        self.errors = _wandb_errors()
        mode = os.environ.get("WANDB_MODE")
        if mode is None:
            mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        self._run = self._wandb.init(
            project=project,
            name=run_name,
            id=_fixed_id(workdir / "wandb_id.txt"),
            # Offline, W&B warns that it ignores this.
            resume="allow" if mode == "online" else None,
            # W&B appends to its files, so that beside a bucket they need a folder on a disk.
            dir=tempfile.mkdtemp() if storage.is_bucket(workdir) else str(workdir),
            mode=mode,
            config=dict(config_json),
            settings=self._wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True
            ),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        pictures = {name: self._wandb.Image(pixels) for name, pixels in images.items()}
        self._run.log({"step": step, **pictures})

    def alert(self, title: str, text: str) -> None:
        self._run.alert(title=title, text=text)

    def close(self) -> None:
        self._run.finish()


def encode_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON; non-finite floats, at any depth, become the strings "NaN", "Infinity", ..."""
    return json.dumps(_encode(value), allow_nan=False, indent=indent)


def read_json_lines(path: PathLike) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a JSONL file, and one sentence for each line that could not be read.

    A missing file has no rows. A last line without a line break was torn by a stop in mid-write:
    it is left out and not named, because a resume writes that step again.
    """
    path = storage.as_path(path)
    rows, problems = [], []
    # Not `splitlines`: after a final line break there is one more, empty line here, so that only
    # a torn line is the last.
    lines = line_file.read_text(path).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append({name: _decode(value) for name, value in row.items()})
        elif number < len(lines):
            problems.append(f"{path.name} line {number} is not a JSON object and was left out")
    return rows, problems


def merge_steps(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with a step in ascending order, the rows of one step merged; later values win."""
    merged: dict[int, dict[str, Any]] = {}
    for row in rows:
        if isinstance(row.get("step"), int):
            merged.setdefault(row["step"], {}).update(row)
    return [merged[step] for step in sorted(merged)]


def read_metrics(workdir: PathLike) -> list[dict[str, Any]]:
    """One dict per logged step of `workdir/metrics.jsonl`, ascending; see the module docstring."""
    return merge_steps(read_json_lines(storage.as_path(workdir) / METRICS_FILE)[0])


def drop_lines_after(path: PathLike, step: int) -> int:
    """Rewrites a JSONL file without unreadable lines and rows after `step`; returns how many.

    Each new file replaces the old one at once: a stop in between loses nothing.
    """
    return line_file.filter_lines(path, lambda line: _step_of(line) <= step)


def _step_of(line: str) -> float:
    """The step of a line; infinite if it has none, so that it is after every step."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return math.inf
    step = row.get("step") if isinstance(row, dict) else None
    return step if isinstance(step, int) else math.inf


def _encode(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _encode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _decode(value: Any) -> Any:
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def _fixed_id(path: epath.Path) -> str:
    if not path.exists():
        storage.replace_text(path, uuid.uuid4().hex[:12])
    return storage.read_text(path).strip()


def _import_wandb() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "config.log.wandb is on but wandb is not installed; "
            "run `pip install wandb` or set it to False"
        ) from error
    return wandb


def _wandb_errors() -> tuple[type[Exception], ...]:
    """wandb's own base class; OSError covers its sockets, its files and requests' exceptions."""
    return (_import_wandb().errors.Error, OSError)


def _say_mirror_lost(name: str, error: Exception) -> None:
    print(
        f"{name} failed ({type(error).__name__}: {error}) and is off for the rest of this run; "
        f"{METRICS_FILE} goes on.",
        file=sys.stderr,
    )
