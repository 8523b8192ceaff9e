"""Is a sequence fit to be trained on? Findings, each one sentence, and a picture for a red one.

Most failed reconstructions are failed preparations that nothing told of: poses of the other side,
cameras of another convention, empty masks. A red finding means that training cannot succeed; a
yellow one that its result will be worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from hand_object.data.sequence import CLASS_OF, OBJECT, UNKNOWN, Sequence
from hand_object.hands.chirality import curl
from hand_object.hands.model import HandModel
from hand_object.hands.skinning import pose_hand
from training.errors import InputError

SHOWN = 12  # frames that are looked at, evenly spread
OBJECT_SIZE = (0.02, 0.6)  # meters
LEAST_OVERLAP = 0.3  # share of projected hand vertices in the hand's or the object's mask
JUMP = 0.15  # meters from frame to frame
BACKWARD = -0.3  # rad: fingers bent over the back of the hand on the mean
_pose = jax.jit(pose_hand)


@dataclass(frozen=True)
class Finding:
    """`level` is green, yellow or red; `picture` [H, W, 3] uint8 shows what is meant."""

    name: str
    level: str
    sentence: str
    picture: np.ndarray | None = None


def check_sequence(sequence: Sequence, models: dict[str, HandModel]) -> list[Finding]:
    """All findings.

    Args:
      models: hand model by side, of the sides that the sequence has poses of; a side whose model
        is not there is not checked against the masks.
    """
    frames = np.unique(np.linspace(0, len(sequence) - 1, SHOWN).round().astype(int))
    masks = {int(frame): sequence.mask(int(frame)) for frame in frames}
    findings = [_camera(sequence), _intrinsics(sequence), *_masks(sequence, masks)]
    if sequence.object is not None:
        findings.append(_object_size(sequence))
    for side, track in sequence.hands.items():
        findings += [_frames_with(sequence, side), _jumps(sequence, side)]
        model = models.get(side)
        if model is None or not track.valid.any():
            continue
        if len(model.joints) != track.pose.shape[1]:
            findings.append(_joint_counts(side, model, track.pose.shape[1]))
            continue
        posed = _pose(model, track.pose, track.translation)
        findings.append(_side(sequence, side, np.asarray(posed.joints)))
        findings.append(_overlap(sequence, side, np.asarray(posed.vertices), masks))
    return findings


def refuse_red(findings: list[Finding]) -> None:
    """Raises InputError with the sentence of the first red finding."""
    red = [finding for finding in findings if finding.level == "red"]
    if red:
        more = f" (and {len(red) - 1} more)" if len(red) > 1 else ""
        raise InputError(f"{red[0].sentence}{more}")


def overlay(sequence: Sequence, frame: int, points: np.ndarray, color=(255, 0, 255)) -> np.ndarray:
    """[H, W, 3] uint8 frame with world points [N, 3] drawn as dots."""
    picture = sequence.image(frame)
    x, y = _pixels(sequence, frame, points).T
    picture[y, x] = color
    return picture


def _camera(sequence: Sequence) -> Finding:
    distance = np.linalg.norm(sequence.camera_centers(), axis=1) * sequence.scene_scale
    worst = int(np.argmax(distance))
    if distance[worst] >= sequence.sphere:
        sentence = (
            f"{sequence.name}: the camera of frame {worst} is {distance[worst]:.2f} from the "
            f"center and so outside of the sphere of {sequence.sphere:g}; lower its scale"
        )
        return Finding("camera", "red", sentence, sequence.image(worst))
    nearest = int(np.argmin(distance))
    if distance[nearest] < 0.02 * sequence.sphere:
        sentence = (
            f"{sequence.name}: the camera of frame {nearest} is at the center of the sphere, where "
            "the object should be; subtract the object's center from the world (normalize_shift)"
        )
        return Finding("camera", "red", sentence, sequence.image(nearest))
    return Finding("camera", "green", f"cameras are {distance.min():.2f} to {distance.max():.2f}"
                   f" from the center of a sphere of {sequence.sphere:g}")  # fmt: skip


def _intrinsics(sequence: Sequence) -> Finding:
    height, width = sequence.size
    k = sequence.intrinsics.astype(np.float64)
    focal = np.stack([k[:, 0, 0], k[:, 1, 1]], axis=1)
    center = np.stack([k[:, 0, 2] / width, k[:, 1, 2] / height], axis=1)
    fine = ((focal > 0.3 * max(width, height)) & (focal < 10 * max(width, height))).all(axis=1)
    fine &= ((center > 0.2) & (center < 0.8)).all(axis=1)
    fine &= np.abs(focal[:, 0] / focal[:, 1] - 1) < 0.2
    if fine.all():
        return Finding("intrinsics", "green", f"focal length {focal.mean():.0f} px at {width} px")
    frame = int(np.argmin(fine))
    sentence = (
        f"{sequence.name}: intrinsics of frame {frame} (focal {focal[frame, 0]:.0f}, "
        f"{focal[frame, 1]:.0f}, center {k[frame, 0, 2]:.0f}, {k[frame, 1, 2]:.0f}) do not fit "
        f"pictures of {width} x {height}; give those of this picture size"
    )
    return Finding("intrinsics", "red", sentence, sequence.image(frame))


def _masks(sequence: Sequence, masks: dict[int, np.ndarray]) -> list[Finding]:
    known = {frame: mask for frame, mask in masks.items() if (mask != UNKNOWN).any()}
    if not known:
        sentence = f"{sequence.name} has no masks; hand and object are told apart by color alone"
        return [Finding("masks", "yellow", sentence)]
    findings = []
    wanted = {"object": OBJECT} if sequence.object is not None else {}
    for name in [*wanted, *sequence.hands]:
        empty = [f for f, mask in known.items() if not (mask == CLASS_OF[name]).any()]
        level = (
            "red" if len(empty) == len(known) else "yellow" if len(empty) > len(known) / 3 else ""
        )
        if level:
            sentence = (
                f"{sequence.name}: masks of {name} are empty in {len(empty)} of {len(known)} "
                f"frames looked at, first {empty[0]}; segment it again (gray 50, 150, 250)"
            )
            findings.append(Finding(f"masks of {name}", level, sentence, sequence.image(empty[0])))
    return findings or [Finding("masks", "green", f"masks of {len(known)} frames show all")]


def _object_size(sequence: Sequence) -> Finding:
    thing = sequence.object
    assert thing is not None
    extent = np.ptp(thing.points, axis=0).max() if len(thing.points) else 2.0
    size = float(extent * thing.radius * thing.scale)
    if OBJECT_SIZE[0] <= size <= OBJECT_SIZE[1]:
        return Finding("object size", "green", f"the object is {100 * size:.0f} cm long")
    sentence = (
        f"{sequence.name}: the object is {100 * size:.3g} cm long, which no hand holds; "
        "check obj_scale and norm_mat, and that lengths are meters"
    )
    return Finding("object size", "red", sentence, sequence.image(0))


def _frames_with(sequence: Sequence, side: str) -> Finding:
    valid = sequence.hands[side].valid
    lost = np.flatnonzero(~valid)
    name = f"frames with the {side} hand"
    if not len(lost):
        return Finding(name, "green", f"the {side} hand has a pose in all {len(valid)} frames")
    level = "red" if not valid.any() else "yellow"
    sentence = (
        f"{sequence.name}: the {side} hand has no pose in {len(lost)} of {len(valid)} frames, "
        f"first frame {lost[0]}; these frames are not trained on with a hand"
    )
    return Finding(name, level, sentence, sequence.image(int(lost[0])))


def _jumps(sequence: Sequence, side: str) -> Finding:
    track = sequence.hands[side]
    both = track.valid[1:] & track.valid[:-1]
    step = np.linalg.norm(np.diff(track.translation, axis=0), axis=1) * both
    if not len(step) or step.max() < JUMP:
        return Finding(f"motion of the {side} hand", "green", f"the {side} hand moves steadily")
    frame = int(np.argmax(step)) + 1
    sentence = (
        f"{sequence.name}: the {side} hand jumps by {100 * step[frame - 1]:.0f} cm to frame "
        f"{frame}; another hand may have been tracked there"
    )
    return Finding(f"motion of the {side} hand", "yellow", sentence, sequence.image(frame))


def _joint_counts(side: str, model: HandModel, found: int) -> Finding:
    sentence = (
        f"poses of the {side} hand have {found} joints but hand model {model.name} has "
        f"{len(model.joints)}; name the model that they were made with"
    )
    return Finding(f"model of the {side} hand", "red", sentence)


def _side(sequence: Sequence, side: str, joints: np.ndarray) -> Finding:
    valid = sequence.hands[side].valid
    bend = curl(joints, side)[valid]
    if bend.mean() > BACKWARD:
        return Finding(f"side of the {side} hand", "green", "fingers bend toward the palm")
    frame = int(np.flatnonzero(valid)[np.argmin(bend)])
    sentence = (
        f"{sequence.name}: fingers of the {side} hand bend over its back, by "
        f"{-np.rad2deg(bend.mean()):.0f} degrees on the mean, as poses of the other side do; "
        "mirror the poses (negate the 2nd and 3rd number of each joint) or change the side"
    )
    picture = overlay(sequence, frame, joints[frame])
    return Finding(f"side of the {side} hand", "red", sentence, picture)


def _overlap(sequence: Sequence, side: str, vertices: np.ndarray, masks) -> Finding:
    """The object may hide the hand, so that its mask counts as well."""
    shares = {}
    for frame, mask in masks.items():
        if sequence.hands[side].valid[frame] and (mask == CLASS_OF[side]).any():
            x, y = _pixels(sequence, frame, vertices[frame]).T
            hit = (mask[y, x] == CLASS_OF[side]) | (mask[y, x] == OBJECT)
            shares[frame] = hit.sum() / len(vertices[frame])
    name = f"projection of the {side} hand"
    if not shares:
        return Finding(name, "yellow", f"no frame has both mask and pose of the {side} hand")
    mean, worst = np.mean(list(shares.values())), min(shares, key=lambda frame: shares[frame])
    if mean >= LEAST_OVERLAP:
        return Finding(name, "green", f"{mean:.0%} of the {side} hand project into its mask")
    sentence = (
        f"{sequence.name}: only {mean:.0%} of the {side} hand's vertices project into its mask "
        f"(frame {worst}: {shares[worst]:.0%}); camera axes, intrinsics or hand model are not "
        "those of the poses"
    )
    return Finding(name, "red", sentence, overlay(sequence, worst, vertices[worst]))


def _pixels(sequence: Sequence, frame: int, points: np.ndarray) -> np.ndarray:
    """[n, 2] column and row of the points that are before the camera and in the picture."""
    camera = sequence.world_to_camera[frame]
    local = points @ camera[:3, :3].T + camera[:3, 3]
    local = local[local[:, 2] > 1e-6]
    places = local @ sequence.intrinsics[frame].T
    pixels = np.rint(places[:, :2] / places[:, 2:])
    height, width = sequence.size
    inside = np.all((pixels >= 0) & (pixels < [width, height]), axis=1)
    return pixels[inside].astype(int)
