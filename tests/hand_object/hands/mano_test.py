"""MANO files: read without their packages, checked, and never run."""

from __future__ import annotations

import pickle
import subprocess
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from hand_object.hands.mano import left_shape_sign_is_wrong, read_mano
from hand_object.hands.skinning import pose_hand
from hand_object.restricted_pickle import read_pickle, read_pickled_npy
from training.errors import InputError

V = 778


def mano(side: str = "right", shape_fault: bool = False) -> dict:
    """A made-up hand with the keys and the sizes of MANO's files."""
    random = np.random.default_rng(7)
    sign = -1 if side == "right" else 1
    template = random.uniform([0, -0.02, -0.05], [0.2, 0.02, 0.05], (V, 3)) * [sign, 1, 1]
    regressor = np.zeros((16, V))
    order = np.argsort(np.abs(template[:, 0]))
    for joint, along in enumerate([0] + [40, 50, 60] * 5):
        regressor[joint, order[along * V // 80 : along * V // 80 + 4]] = 0.25
    shape_dirs = random.normal(size=(V, 3, 10), scale=1e-3)
    shape_dirs[:, :, 0] = 0.05 * (template - template.mean(axis=0))
    if shape_fault:
        shape_dirs[:, 0] *= -1
    parents = np.array([[2**32 - 1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14], range(16)])
    weights = random.uniform(size=(V, 16))
    return {
        "v_template": template,
        "f": random.integers(0, V, (1538, 3)).astype(np.uint32),
        "shapedirs": shape_dirs,
        "posedirs": random.normal(size=(V, 3, 135), scale=1e-3),
        "J_regressor": scipy.sparse.csc_matrix(regressor),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": parents,
        "hands_mean": random.normal(size=45, scale=0.1),
    }


def save(path, content, protocol: int = 2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def test_blend_shapes_are_applied_as_written(tmp_path):
    held = mano()
    hand = read_mano(save(tmp_path / "MANO_RIGHT.pkl", held), "right")
    shape = np.linspace(-1, 1, 10).astype(np.float32)
    pose = np.zeros((1, 16, 3), np.float32)
    pose[0, 2] = [0.3, 0, 0]
    posed = pose_hand(hand, pose, jnp.zeros((1, 3)), shape)
    template = held["v_template"] + held["shapedirs"] @ shape
    c, s = np.cos(0.3), np.sin(0.3)
    bend = np.zeros((15, 3, 3))
    bend[1] = np.array([[0, 0, 0], [0, c - 1, -s], [0, s, c - 1]])
    moved = template + held["posedirs"] @ bend.ravel()
    joints = held["J_regressor"] @ template
    turned = (moved - joints[2]) @ (bend[1] + np.eye(3)).T + joints[2]
    share = held["weights"][:, [2, 3]].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(posed.vertices[0], (1 - share) * moved + share * turned, atol=2e-6)
    np.testing.assert_allclose(posed.joints[0, 4], posed.vertices[0, 745], atol=1e-7)


def test_the_mean_pose_is_added_where_asked(tmp_path):
    held = mano()
    path = save(tmp_path / "MANO_RIGHT.pkl", held)
    hand = read_mano(path, "right", flat=False)
    flat = read_mano(path, "right")
    pose = np.concatenate([np.zeros(3), held["hands_mean"]]).reshape(1, 16, 3).astype(np.float32)
    shift = jnp.zeros((1, 3))
    found = pose_hand(hand, jnp.zeros((1, 16, 3)), shift).vertices
    np.testing.assert_allclose(found, pose_hand(flat, pose, shift).vertices, atol=1e-6)


def test_the_sign_of_left_shapes_is_repaired(tmp_path):
    sound = read_mano(save(tmp_path / "a.pkl", mano("left")), "left")
    faulty = read_mano(save(tmp_path / "b.pkl", mano("left", shape_fault=True)), "left")
    np.testing.assert_array_equal(sound.shape_dirs, faulty.shape_dirs)
    held = mano("left", shape_fault=True)
    assert left_shape_sign_is_wrong(held["v_template"], np.moveaxis(held["shapedirs"], 2, 0))


def test_the_file_of_the_other_side_is_refused(tmp_path):
    with pytest.raises(InputError, match="other side"):
        read_mano(save(tmp_path / "MANO_LEFT.pkl", mano("left")), "right")


def test_chumpy_arrays_are_read_without_chumpy(tmp_path, monkeypatch):
    module = types.ModuleType("chumpy.ch")

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    held = mano()
    wanted = held["shapedirs"]
    held["shapedirs"] = Ch(wanted)
    path = save(tmp_path / "MANO_RIGHT.pkl", held)
    monkeypatch.undo()
    hand = read_mano(path, "right")
    np.testing.assert_allclose(hand.shape_dirs, np.moveaxis(wanted, 2, 0), rtol=1e-6)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return subprocess.check_call, (["touch", str(self.target)],)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, protocol):
    target = tmp_path / "harm"
    path = save(tmp_path / "MANO_RIGHT.pkl", {"v_template": Malicious(target)}, protocol)
    with pytest.raises(
        InputError, match=r"MANO_RIGHT.pkl is refused: it asks for (subprocess|commands)"
    ):
        read_mano(path, "right")
    np.save(tmp_path / "data.npy", np.array(Malicious(target), object), allow_pickle=True)
    with pytest.raises(InputError, match="refused"):
        read_pickled_npy(tmp_path / "data.npy")
    assert not target.exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "exec", "__import__"])
def test_builtins_that_run_code_are_refused(tmp_path, name):
    path = tmp_path / "data.pkl"
    path.write_bytes(f"cbuiltins\n{name}\n.".encode())
    with pytest.raises(InputError, match=name):
        read_pickle(path)


def test_damaged_and_missing_files_are_told_apart(tmp_path):
    path = save(tmp_path / "MANO_RIGHT.pkl", mano())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"damaged|refused"):
        read_mano(path, "right")
    with pytest.raises(InputError, match="there is no file"):
        read_mano(tmp_path / "none.pkl", "right")
    with pytest.raises(InputError, match="lacks v_template"):
        read_mano(save(path, {"f": 1}), "right")
