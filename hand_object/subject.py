"""What evaluation, export and pictures ask of a task, so that they need not import it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from hand_object.config import Config
from hand_object.data.sequence_access import Opened
from hand_object.render.scene_placement import Statics


class Subject(Protocol):
    """What is asked of a task: its sequence, what it holds out, and the poses of the data."""

    @property
    def config(self) -> Config: ...
    @property
    def opened(self) -> Opened: ...
    @property
    def statics(self) -> Statics: ...
    @property
    def held_out(self) -> np.ndarray: ...
    @property
    def start_poses(self) -> dict[str, Any]: ...
    def rendering_arrays(self) -> dict[str, Any]: ...
