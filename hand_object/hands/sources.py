"""Where hand models come from: embedded ones by name, files by path.

| name | what | license |
|---|---|---|
| `parametric` (default) | MakeHuman's hand, 8 shape numbers | CC0 |
| `webxr` | a generic hand without shape numbers | MIT, notice beside it |
| a path of `.pkl` | MANO, the user's own file | MANO's |
| a path of `.npz` | plain skinning, as `read_plain` wants it | the file's |

Embedded hands are right ones; the left is its mirror image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hand_object.hands.mano import NAMES, ORDER, PARENTS, read_mano
from hand_object.hands.model import FINGERS, SIDES, HandModel, mirrored, plain_model
from training.errors import ConfigError, InputError

ASSETS = Path(__file__).parent / "assets"
DEFAULT = "parametric"
EMBEDDED = ("parametric", "webxr")


def load_hand(model: str = DEFAULT, side: str = "right") -> HandModel:
    """A hand by the name of an embedded model or by the path of a file.

    Raises:
      ConfigError: the side or the name is unknown.
      InputError: the file is missing, damaged, or of the other side.
    """
    if side not in SIDES:
        raise ConfigError(f"hand side {side!r} is unknown; it is right or left")
    if model in EMBEDDED:
        right = _parametric() if model == "parametric" else _webxr()
        return right if side == "right" else mirrored(right)
    path = Path(model)
    if path.suffix not in (".pkl", ".npz"):
        raise ConfigError(
            f"hand model {model!r} is unknown; name one of {', '.join(EMBEDDED)}, a MANO .pkl or "
            "a plain .npz"
        )
    return read_mano(path, side) if path.suffix == ".pkl" else read_plain(path, side)


def read_plain(path: Path, side: str) -> HandModel:
    """A model of plain skinning; its joints are found by name (umetrack's or WebXR's).

    Raises:
      InputError: the file is no such model, or its joints have other names.
    """
    if not path.is_file():
        raise InputError(f"there is no hand model {path}; check the path")
    try:
        with np.load(path, allow_pickle=False) as file:
            held = dict(file)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is no readable .npz file ({error}); copy it again") from None
    missing = {"v_template", "faces", "J", "parents", "weights", "joint_names"} - set(held)
    if missing:
        raise InputError(f"{path} is no hand model: it lacks {', '.join(sorted(missing))}")
    names = [str(name) for name in held["joint_names"]]
    if "thumb-metacarpal" in names:
        return fold_webxr(held, side, path.stem)
    if "landmarks" in held and names[0] == "wrist":
        return _umetrack(held, names, side, path.stem)
    raise InputError(f"{path}: its joints have names that are unknown here: {', '.join(names)}")


def _umetrack(held: dict, names: list[str], side: str, name: str) -> HandModel:
    """The tree is kept, 17 joints, as recordings have a pose for each."""
    chains = dict.fromkeys(FINGERS, (0, 1, 2)) | {"thumb": (1, 2, 3)}
    order = [names.index(f"{finger}{k}") for finger in FINGERS for k in chains[finger]]
    return plain_model(
        held["v_template"],
        held["faces"],
        held["weights"],
        held["J"],
        held["landmarks"][:5],  # finger tips, from the thumb on
        held["landmark_weights"][:5],
        parents=tuple(held["parents"]),
        joint_names=tuple(names),
        order=(0, *order),
        side=side,
        name=name,
        license="of the recording that the hand is from",
    )


def fold_webxr(held: dict, side: str, name: str) -> HandModel:
    """25 joints to MANO's 16: bones of the palm join the wrist, tips join the last joints."""
    names = [str(joint) for joint in held["joint_names"]]
    wanted = {"wrist": names.index("wrist")}
    for finger in FINGERS:
        prefix = "thumb" if finger == "thumb" else f"{finger}-finger"
        phalanges = ("proximal", "intermediate", "distal")
        bones = ["metacarpal", "phalanx-proximal", "phalanx-distal"]
        if finger != "thumb":
            bones = [f"phalanx-{phalanx}" for phalanx in phalanges]
        for k, bone in enumerate(bones, start=1):
            wanted[f"{finger}{k}"] = names.index(f"{prefix}-{bone}")
        wanted[f"{finger}-tip"] = names.index(f"{prefix}-tip")
    fold = np.zeros((len(names), len(NAMES)))
    for joint in range(len(names)):
        fold[joint, _owner(joint, names, held["parents"], wanted)] = 1
    wrist = held["J"][wanted["wrist"]]
    distal = [NAMES.index(f"{finger}3") for finger in FINGERS]
    return plain_model(
        held["v_template"] - wrist,
        held["faces"],
        held["weights"] @ fold,
        np.stack([held["J"][wanted[joint]] for joint in NAMES]) - wrist,
        np.stack([held["J"][wanted[f"{finger}-tip"]] for finger in FINGERS]) - wrist,
        np.eye(len(NAMES))[distal],
        parents=PARENTS,
        joint_names=NAMES,
        order=ORDER,
        side=side,
        name=name,
        license="MIT, (c) 2019 Amazon",
    )


def _owner(joint: int, names: list[str], parents: np.ndarray, wanted: dict[str, int]) -> int:
    """MANO's joint that a WebXR joint moves with: itself, or the nearest one before it."""
    kept = {wanted[name]: NAMES.index(name) for name in NAMES}
    while joint not in kept:
        joint = int(parents[joint])
    return kept[joint]


def _parametric() -> HandModel:
    with np.load(ASSETS / "parametric_right.npz", allow_pickle=False) as file:
        held = dict(file)
    tips = held["tip_vertices"]
    weights = held["weights"].astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    return plain_model(
        held["template"],
        held["faces"],
        weights,
        held["joints"],
        held["template"][tips],
        weights[tips],
        parents=PARENTS,
        joint_names=NAMES,
        order=ORDER,
        side="right",
        name="parametric",
        license="CC0 1.0 (MakeHuman)",
        shape_dirs=held["shape_dirs"],
        joint_dirs=held["joint_dirs"],
        tip_dirs=held["shape_dirs"][:, tips],
        shape_names=tuple(str(name) for name in held["shape_names"]),
    )


def _webxr() -> HandModel:
    with np.load(ASSETS / "webxr_right.npz", allow_pickle=False) as file:
        return fold_webxr(dict(file), "right", "webxr")
