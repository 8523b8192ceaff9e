"""The scene that a config names, read when its photographs are first asked for."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from splats.config import SYNTHETIC, SceneConfig, scene_folder
from splats.data.scene import Scene, SceneReport, load_scene
from splats.data.scene_facts import SceneFacts, check_same_scene
from splats.losses.photometric import WINDOW
from splats.synthetic import write_scene
from training.errors import ConfigError, InputError


class Photographs:
    """A promise of a scene: using a trained model must not cost the decoding of photographs."""

    def __init__(self, config: SceneConfig, scene: Scene | None = None):
        """`scene`: already loaded."""
        self.config = config
        if scene is not None:
            # Takes the place of the cached property below.
            self.scene = scene

    @cached_property
    def scene(self) -> Scene:
        """Loads the scene; raises as `open_scene`."""
        return open_scene(self.config)


@dataclass(frozen=True, eq=False)
class SceneAccess:
    """The scene of a task: its facts at once where a checkpoint told them, the rest on demand.

    Attributes:
      photographs: shared by all tasks of a run, so that nothing is read twice.
      saved: what a checkpoint knows of the scene; None before there is one.
    """

    photographs: Photographs
    saved: SceneFacts | None = None

    @cached_property
    def scene(self) -> Scene:
        """The whole scene.

        Raises:
          InputError: its files are gone, missing, damaged or contradictory.
          ConfigError: settings that cannot work.
          CheckpointError: it is another world than the checkpoint's, or its split is another.
        """
        if self.saved is not None:
            _check_there(self.photographs.config.path)
        scene = self.photographs.scene
        if self.saved is not None:
            check_same_scene(self.saved, scene)
        return scene

    @property
    def facts(self) -> SceneFacts:
        """Of the checkpoint where there is one, else of the scene, which is loaded for it."""
        return self.scene if self.saved is None else self.saved

    def told(self, saved: SceneFacts) -> SceneAccess:
        """The same photographs, to be compared with other facts."""
        return SceneAccess(self.photographs, saved)


def access(config: SceneConfig) -> SceneAccess:
    """To the scene that the config names; nothing is read yet."""
    return SceneAccess(Photographs(config))


def _check_there(path: str) -> None:
    if path == SYNTHETIC:
        return
    try:
        scene_folder(path)
    except ConfigError as error:
        raise InputError(
            f"the photographs of this run are gone: config.scene.path = {path!r} is no folder any "
            "more; training and evaluate need them (export, predict and view do not)"
        ) from error


def open_scene(config: SceneConfig) -> Scene:
    """The scene that the config names; `synthetic` is ray cast on the spot.

    Raises:
      ConfigError: no such folder, settings that cannot work, or photographs too small for SSIM.
      InputError: files that are missing, damaged or contradictory.
    """
    options: dict[str, Any] = {"split": config.split, "normalize": config.normalize}
    if config.path == SYNTHETIC:
        with tempfile.TemporaryDirectory() as folder:
            # Pixels are read into memory at once, so that the folder may go.
            return load_scene(write_scene(folder), **options)
    scene = load_scene(
        scene_folder(config.path),
        images=config.images,
        factor=config.factor,
        cache=config.cache,
        kind=config.kind,
        sparse=config.sparse,
        masks=config.masks,
        alpha=config.alpha,
        **options,
    )
    smallest = scene.sizes.min(axis=1).argmin()
    width, height = scene.sizes[smallest].tolist()
    if min(width, height) < WINDOW:
        raise ConfigError(
            f"the view {scene.names[smallest]} has {width} x {height} pixels and SSIM needs "
            f"{WINDOW} a side; lower config.scene.factor or take larger images"
        )
    _tell(scene.report)
    return scene


def _tell(report: SceneReport) -> None:
    """Says on stderr what of the data set is not used; `podvision prepare splats` lists it all."""
    lines = [f"note: {note}" for note in report.notes]
    if report.missing:
        lines.append(
            f"note: {len(report.missing)} of {report.listed} listed images are missing and left "
            f"out (first: {report.missing[0]})"
        )
    if jax.process_index() == 0 and lines:
        print("\n".join(lines), file=sys.stderr)
