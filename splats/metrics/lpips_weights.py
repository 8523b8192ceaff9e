"""Weights of LPIPS from the user's file, strictly: nothing is downloaded, nothing goes unused.

The file is the state of the Python package `lpips`, written once where that package is installed:

    import lpips; from safetensors.torch import save_model
    save_model(lpips.LPIPS(net="vgg"), "lpips_vgg.safetensors")  # or net="alex"
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from splats.config import MetricsConfig
from splats.metrics.lpips import NETWORKS, SCALE, SHIFT, VARIANTS, Layer, Lpips, check_size
from training.errors import ConfigError, InputError
from training.weight_files import read_safetensors

RECIPE = (
    "save it once with: import lpips; from safetensors.torch import save_model; "
    'save_model(lpips.LPIPS(net="{network}"), "lpips_{network}.safetensors")'
)
# SHA-256 of the channel weights of version 0.1, stage after stage, float32, little endian.
# They make the difference between v0.1, v0.0 and what somebody trained anew.
LINEAR_DIGESTS = {
    "alex": "718a8b40b0d22f96192d34ab93c0db5c7943558ff6c2407f44812dce2f29b5f4",
    "vgg": "9153a2043dccf3b525d4f13db916e93ef040548ea923b6f2100de5ebac141a78",
}
# A tensor that only this network of the package has.
MARKS = {"alex": "net.slice5.10.weight", "vgg": "net.slice5.28.weight", "squeeze": "lin6"}


def load_lpips(metrics: MetricsConfig, sizes: np.ndarray) -> Lpips | None:
    """The metric that `config.metrics` asks for, None if none.

    Args:
      sizes: [V, 2], width and height of the photographs in pixels.

    Raises:
      ConfigError: photographs too small for the network, or no such file.
      InputError: the file is not exactly the weights of the variant.
    """
    name, path = metrics.lpips, metrics.lpips_weights
    if not name:
        return None
    for width, height in np.unique(sizes, axis=0).tolist():
        check_size(name, width, height)
    network, file = VARIANTS[name].network, Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"config.metrics.lpips_weights = {path!r} is no file; {RECIPE.format(network=network)}"
        )
    weights = read_weights(file, network)
    return Lpips(name, {key: jnp.asarray(value) for key, value in weights.items()})


def read_weights(path: Path, network: str) -> dict[str, np.ndarray]:
    """Every tensor of the file, used once: the weights as `splats.metrics.lpips.Lpips` has them.

    The package holds its channel weights under two names, `lin0` and `lins.0`; a file may have
    either or both, if they are equal.

    Raises:
      InputError: tensors that are missing, unexpected or of another shape, type or variant.
      CheckpointError: no safetensors file.
    """
    tensors = _merged(path, read_safetensors(path))
    _check_network(path, tensors, network)
    shapes = expected_shapes(network)
    missing, unexpected = sorted(set(shapes) - set(tensors)), sorted(set(tensors) - set(shapes))
    if missing or unexpected:
        parts = [f"lacks {_named(missing)}"] * bool(missing)
        parts += [f"has {_named(unexpected)} besides"] * bool(unexpected)
        raise InputError(f"{path} {' and '.join(parts)}; {RECIPE.format(network=network)}")
    for name, shape in shapes.items():
        _check_tensor(path, name, tensors[name], shape)
    for name, values in (("shift", SHIFT), ("scale", SCALE)):
        found = tensors.pop(f"scaling_layer.{name}").ravel()
        if not np.array_equal(found, np.asarray(values, np.float32)):
            raise InputError(f"{path}: scaling_layer.{name} is {found}, LPIPS has {values}")
    linear = {f"lin{stage}": tensors.pop(_linear_name(stage)).ravel() for stage in range(5)}
    digest = hashlib.sha256(b"".join(row.astype("<f4").tobytes() for row in linear.values()))
    if digest.hexdigest() != LINEAR_DIGESTS[network]:
        raise InputError(
            f"{path}: the channel weights (lin0 to lin4) are not those of LPIPS v0.1 for {network};"
            f" {RECIPE.format(network=network)}"
        )
    return tensors | linear


def expected_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of the package's state, channel weights under their first name."""
    shapes: dict[str, tuple[int, ...]] = {
        "scaling_layer.shift": (1, 3, 1, 1),
        "scaling_layer.scale": (1, 3, 1, 1),
    }
    for layer in NETWORKS[network]:
        shapes[f"{layer.name}.weight"] = _kernel_shape(layer)
        shapes[f"{layer.name}.bias"] = (layer.outputs,)
    taps = [layer for layer in NETWORKS[network] if layer.tap]
    for stage, layer in enumerate(taps):
        shapes[_linear_name(stage)] = (1, layer.outputs, 1, 1)
    return shapes


def _kernel_shape(layer: Layer) -> tuple[int, ...]:
    return (layer.outputs, layer.inputs, layer.kernel, layer.kernel)


def _linear_name(stage: int) -> str:
    return f"lin{stage}.model.1.weight"


def _merged(path: Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`lins.0...` under its first name, `lin0...`."""
    merged = {name: value for name, value in tensors.items() if not name.startswith("lins.")}
    for name in sorted(set(tensors) - set(merged)):
        first = name.replace("lins.", "lin", 1)
        if first in merged and not np.array_equal(merged[first], tensors[name]):
            raise InputError(f"{path}: {name} and {first} differ and must be one tensor")
        merged[first] = tensors[name]
    return merged


def _check_network(path: Path, tensors: dict[str, np.ndarray], network: str) -> None:
    for other, mark in MARKS.items():
        if other != network and any(name.startswith(mark) for name in tensors):
            raise InputError(
                f"{path} holds the LPIPS weights of {other}, but config.metrics.lpips asks for "
                f"{network}; {RECIPE.format(network=network)}"
            )


def _check_tensor(path: Path, name: str, value: np.ndarray, shape: tuple[int, ...]) -> None:
    if value.shape != shape or value.dtype != np.float32:
        raise InputError(
            f"{path}: {name} is {value.dtype}{list(value.shape)}, expected float32{list(shape)}"
        )
    if not np.isfinite(value).all():
        raise InputError(f"{path}: {name} has values that are not finite; save it again")


def _named(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
