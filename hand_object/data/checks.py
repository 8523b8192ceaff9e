"""Is a sequence fit to be trained on? Findings, each one sentence, and a picture for a red one.

Most failed reconstructions are failed preparations that nothing told of: poses of the other side,
cameras of another convention, empty masks. A red finding means that training cannot succeed; a
yellow one that its result will be worse.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from hand_object.data.finding import (
    LEAST_OVERLAP,
    Finding,
    in_camera,
    overlay,
    pixels_of,
    refuse_red,
    shown_frames,
)
from hand_object.data.node_points import node_points, node_valid, posed_track
from hand_object.data.picture_checks import check_files, check_masks
from hand_object.data.sequence import BACKGROUND, CLASS_OF, Sequence
from hand_object.hands.chirality import curl
from hand_object.hands.model import HandModel

__all__ = ["Finding", "check_sequence", "refuse_red"]
OBJECT_SIZE = (0.02, 0.6)  # meters
FAR = 10.0  # meters from the camera, at which a hand is a dot
JUMP, TURN = 0.15, 1.0  # meters and rad from frame to frame
STILL = 0.005  # meters and rad that a camera on a stand may move
REGISTERED = 0.5  # least share of frames with a pose of the object
_IN_METERS = (
    "divide cameras' translations, scale_mat, hand_trans, object_poses[:, 3:] and obj_scale by 1000"
)
_MADE_OF = {"object": "obj_scale and norm_mat", "right": "hand model", "left": "hand model"}
BACKWARD = -0.3  # rad: fingers bent over the back of the hand on the mean


def check_sequence(sequence: Sequence, models: Mapping[str, HandModel]) -> list[Finding]:
    """All findings.

    Args:
      models: hand model by side, of the sides that the sequence has poses of; a side whose model
        is not there is not checked against the masks.
    """
    files = check_files(sequence)
    if files.level == "red":
        return [files]  # nothing else can be looked at
    if sequence.object is None and not sequence.hands:
        sentence = (
            f"{sequence.name} has neither a hand nor an object; give entities.right, "
            "entities.left or entities.object"
        )
        return [Finding("nodes", "red", sentence, sequence.image(0))]
    masks = {frame: sequence.mask(frame) for frame in shown_frames(sequence)}
    points = node_points(sequence, models)
    findings = [
        files,
        _camera(sequence),
        _still(sequence),
        _intrinsics(sequence),
        *check_masks(sequence, masks),
    ]
    if sequence.object is not None:
        center = _object_center(sequence)
        findings += [_object_size(sequence), _frames_with(sequence, "object")]
        findings += [_jumps(sequence, "object", center, sequence.object.axis_angle)]
        if "object" in points and sequence.object.valid.any():
            findings.append(_overlap(sequence, "object", points["object"], masks))
    for side, track in sequence.hands.items():
        findings += [_frames_with(sequence, side)]
        model = models.get(side)
        if not track.pose.shape[1]:
            continue  # meshes that no model was registered to
        findings.append(_jumps(sequence, side, track.translation, track.pose[:, 0]))
        if not track.valid.any():
            continue
        findings.append(_distance(sequence, side))
        if model is None:
            continue
        if side not in points:
            findings.append(_joint_counts(side, model, track.pose.shape[1]))
            continue
        findings.append(_side(sequence, side, np.asarray(posed_track(model, track).joints)))
        findings.append(_overlap(sequence, side, points[side], masks))
    return findings


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


def _still(sequence: Sequence) -> Finding:
    """Whether the camera stands still in the world, as one median frame as background asks for."""
    moved = np.ptp(sequence.camera_centers(), axis=0).max()
    turns = Rotation.from_matrix(sequence.world_to_camera[:, :3, :3].astype(np.float64))
    turned = (turns * turns[0].inv()).magnitude().max()
    if moved < STILL and turned < STILL:
        return Finding("motion of the camera", "green", "the camera stands still")
    sentence = (
        f"{sequence.name}: the camera moves, by {100 * moved:.0f} cm and {np.rad2deg(turned):.0f} "
        "degrees; one median frame is no background of it: set config.model.background.kind = "
        "inverted_sphere where the preset has median_frame"
    )
    return Finding("motion of the camera", "yellow", sentence, sequence.image(len(sequence) - 1))


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
    # A center in the middle of another picture tells which size was meant.
    times = 2 * center[frame].mean()
    meant = f"they look like those of {times * width:.0f} x {times * height:.0f}; " * bool(
        np.abs(2 * center[frame] / times - 1).max() < 0.1 and abs(times - 1) > 0.2
    )
    sentence = (
        f"{sequence.name}: intrinsics of frame {frame} (focal {focal[frame, 0]:.0f}, "
        f"{focal[frame, 1]:.0f}, center {k[frame, 0, 2]:.0f}, {k[frame, 1, 2]:.0f}) do not fit "
        f"pictures of {width} x {height}; {meant}give those of this picture size"
    )
    return Finding("intrinsics", "red", sentence, sequence.image(frame))


def _object_size(sequence: Sequence) -> Finding:
    thing = sequence.object
    assert thing is not None
    extent = np.ptp(thing.points, axis=0).max() if len(thing.points) else 2.0
    size = float(extent * thing.radius * thing.scale)
    if OBJECT_SIZE[0] <= size <= OBJECT_SIZE[1]:
        return Finding("object size", "green", f"the object is {100 * size:.0f} cm long")
    advice = "check obj_scale and norm_mat, and that lengths are meters"
    if OBJECT_SIZE[0] <= size / 1000 <= OBJECT_SIZE[1]:
        advice = f"lengths look like millimeters; {_IN_METERS}"
    sentence = (
        f"{sequence.name}: the object is {100 * size:.3g} cm long, which no hand holds; {advice}"
    )
    return Finding("object size", "red", sentence, sequence.image(0))


def _distance(sequence: Sequence, side: str) -> Finding:
    """How far a hand is from the camera, by its translations."""
    track = sequence.hands[side]
    frames = np.flatnonzero(track.valid)
    away = [
        float(np.linalg.norm(in_camera(sequence, frame, track.translation[frame][None])))
        for frame in frames.tolist()
    ]
    name, middle = f"distance of the {side} hand", float(np.median(away))
    if middle < FAR:
        return Finding(name, "green", f"the {side} hand is {middle:.2f} m from the camera")
    advice = "check that cameras and hand_trans are of one world"
    if middle < 1000 * FAR:
        advice = f"lengths look like millimeters; {_IN_METERS}"
    sentence = f"{sequence.name}: the {side} hand is {middle:.0f} m from the camera; {advice}"
    return Finding(name, "red", sentence, sequence.image(int(frames[0])))


def _object_center(sequence: Sequence) -> np.ndarray:
    """[T, 3] meters; the origin of an object may lie far outside of it."""
    thing = sequence.object
    assert thing is not None
    turns = Rotation.from_rotvec(thing.axis_angle)
    return turns.apply(thing.center * thing.scale) + thing.translation


def _frames_with(sequence: Sequence, name: str) -> Finding:
    valid = node_valid(sequence, name)
    lost = np.flatnonzero(~valid)
    called, title = _called(name), f"frames with {_called(name)}"
    if not len(lost):
        return Finding(title, "green", f"{called} has a pose in all {len(valid)} frames")
    advice, level = "these frames are not trained on with it", "yellow"
    if not valid.any():
        advice, level = f"give its poses, or leave entities.{name} out", "red"
    elif name == "object" and valid.mean() < REGISTERED:
        advice, level = (
            "structure from motion has lost it; take more textured or slower frames, or track it "
            "by another tool",
            "red",
        )
    sentence = (
        f"{sequence.name}: {called} has no pose in {len(lost)} of {len(valid)} frames, first "
        f"frame {lost[0]}; {advice}"
    )
    return Finding(title, level, sentence, sequence.image(int(lost[0])))


def _jumps(sequence: Sequence, name: str, places: np.ndarray, axis_angles: np.ndarray) -> Finding:
    """Of places [T, 3] and rotations [T, 3] of a node."""
    valid, called = node_valid(sequence, name), _called(name)
    title = f"motion of {called}"
    both = valid[1:] & valid[:-1]
    step = np.linalg.norm(np.diff(places, axis=0), axis=1) * both
    turns = Rotation.from_rotvec(axis_angles)
    turn = (turns[1:] * turns[:-1].inv()).magnitude() * both if len(both) else step
    worse = np.maximum(step / JUMP, turn / TURN)
    if not len(worse) or worse.max() < 1:
        return Finding(title, "green", f"{called} moves steadily")
    frame = int(np.argmax(worse)) + 1
    count = int((worse >= 1).sum())
    sentence = (
        f"{sequence.name}: {called} jumps by {100 * step[frame - 1]:.0f} cm and "
        f"{np.rad2deg(turn[frame - 1]):.0f} degrees to frame {frame} ({count} jumps in all); "
        "poses of frames that were tracked wrongly are better left out (NaN)"
    )
    return Finding(title, "yellow", sentence, sequence.image(frame))


def _called(name: str) -> str:
    return "the object" if name == "object" else f"the {name} hand"


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


def _overlap(sequence: Sequence, name: str, points: np.ndarray, masks) -> Finding:
    """Hand and object may hide each other, so that masks of other nodes count as well."""
    called, shares, valid = _called(name), {}, node_valid(sequence, name)
    for frame, mask in masks.items():
        if valid[frame] and (mask == CLASS_OF[name]).any():
            x, y = pixels_of(sequence, frame, points[frame]).T
            shares[frame] = np.sum(mask[y, x] != BACKGROUND) / len(points[frame])
    title = f"projection of {called}"
    if not shares:
        return Finding(title, "yellow", f"no frame has both mask and pose of {called}")
    mean, worst = np.mean(list(shares.values())), min(shares, key=lambda frame: shares[frame])
    if mean >= LEAST_OVERLAP:
        return Finding(title, "green", f"{mean:.0%} of {called} project into its mask")
    sentence = (
        f"{sequence.name}: only {mean:.0%} of {called} project into its mask (frame {worst}: "
        f"{shares[worst]:.0%}); camera axes, intrinsics or {_MADE_OF[name]} are not those of the "
        "poses"
    )
    return Finding(title, "red", sentence, overlay(sequence, worst, points[worst]))
