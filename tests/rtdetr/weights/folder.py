"""A small network as a folder of transformers, and as a file of the authors.

Made without PyTorch: its files are ZIP archives with a pickle in which tensors refer to storages.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from rtdetr.config import BackboneConfig, DecoderConfig, EncoderConfig, ModelConfig
from rtdetr.data.dataset import ClassTable
from rtdetr.model.counts import shapes
from rtdetr.weights.names import entries
from rtdetr.weights.spellings import as_saved
from rtdetr.weights.transformers_config import to_transformers
from training.paths import named_leaves
from training.weight_files import write_safetensors

# Small, with every part that a published network has.
MODEL = ModelConfig(
    backbone=BackboneConfig(depths=(1, 2, 1, 1), stem=(8, 8, 16), widths=(8, 16, 32, 64)),
    encoder=EncoderConfig(width=32, heads=4, feed_forward=64),
    decoder=DecoderConfig(
        width=32,
        heads=4,
        feed_forward=64,
        layers=3,
        queries=20,
        position_hidden=(64,),
        select_invalid=True,
    ),
)
NAMES = ClassTable(tuple(f"class {number}" for number in range(80)), tuple(range(80)))


def random_weights(model: ModelConfig = MODEL, classes: int = len(NAMES)) -> dict[str, np.ndarray]:
    """An array for every name, all different, and a counter as norms of PyTorch have it."""
    leaves = named_leaves(dict(zip(("params", "statistics"), shapes(model, classes))))
    draw = np.random.default_rng(11)
    weights = {
        entry.name: entry.to_theirs(draw.normal(size=leaves[entry.path].shape).astype(np.float32))
        for entry in entries(model)
    }
    return weights | {"model.encoder_input_proj.0.1.num_batches_tracked": np.zeros((), np.int64)}


def write_transformers(folder: Path, weights: dict, model: ModelConfig, old: bool = True) -> Path:
    """`config.json` and `model.safetensors`; `old` spells names as `save_pretrained` does."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {as_saved(name) if old else name: value for name, value in weights.items()}
    write_safetensors(folder / "model.safetensors", named)
    (folder / "config.json").write_text(json.dumps(to_transformers(model, NAMES)))
    return folder


_AUTHORS = (
    (r"^model\.backbone\.model\.embedder\.embedder\.0", "backbone.conv1.conv1_1"),
    (r"^model\.backbone\.model\.embedder\.embedder\.1", "backbone.conv1.conv1_2"),
    (r"^model\.backbone\.model\.embedder\.embedder\.2", "backbone.conv1.conv1_3"),
    (r"^model\.backbone\.model\.encoder\.stages\.", "backbone.res_layers."),
    (r"(res_layers\.\d)\.layers\.", r"\1.blocks."),
    (r"\.layer\.0\.", ".branch2a."),
    (r"\.layer\.1\.", ".branch2b."),
    (r"\.layer\.2\.", ".branch2c."),
    (r"\.shortcut\.1\.", ".short.conv."),
    (r"\.shortcut\.", ".short."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".norm."),
    (r"^model\.encoder_input_proj", "encoder.input_proj"),
    (r"^model\.decoder_input_proj\.(\d)\.0", r"decoder.input_proj.\1.conv"),
    (r"^model\.decoder_input_proj\.(\d)\.1", r"decoder.input_proj.\1.norm"),
    (r"^model\.encoder\.aifi\.0", "encoder.encoder.0"),
    (r"^model\.encoder\.", "encoder."),
    (r"^model\.decoder\.class_embed", "decoder.dec_score_head"),
    (r"^model\.decoder\.bbox_embed", "decoder.dec_bbox_head"),
    (r"^model\.decoder\.query_pos_head", "decoder.query_pos_head"),
    (r"^model\.decoder\.layers", "decoder.decoder.layers"),
    (r"^model\.(enc_|denoising)", r"decoder.\1"),
    (r"\.mlp\.fc([12])\.", r".linear\1."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"self_attn\.o_proj", "self_attn.out_proj"),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.encoder_attn_layer_norm\.", ".norm2."),
    (r"(encoder\.encoder\..*)\.final_layer_norm\.", r"\1.norm2."),
    (r"\.final_layer_norm\.", ".norm3."),
)


def as_authors(weights: dict) -> dict:
    """The arrays under the authors' names, with query, key and value in one."""
    found = {}
    for name, value in weights.items():
        if "q_proj" in name:
            parts = [weights[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            value, name = np.concatenate(parts), name.replace("q_proj.", "in_proj_")
        elif re.search(r"self_attn\.[kv]_proj", name):
            continue
        for pattern, template in _AUTHORS:
            name = re.sub(pattern, template, name)
        found[name] = value
    return found


def write_torch(path: Path, held: object) -> Path:
    """A file as `torch.save` writes it; arrays in `held` become tensors."""
    storages: list[np.ndarray] = []
    stream = io.BytesIO()
    modules = _stand_ins()
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        _Writer(stream, storages, modules).dump(held)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        archive.writestr("archive/byteorder", "little")
        for number, values in enumerate(storages):
            archive.writestr(f"archive/data/{number}", values.tobytes())
    return path


class _Storage:
    """Refers to an array."""

    def __init__(self, values: np.ndarray):
        self.values = values


def _stand_ins() -> dict[str, types.ModuleType]:
    """Modules by whose names a file of PyTorch asks for its tensors."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*_):
        raise AssertionError("only its name is pickled")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch", "__qualname__": name}))
    return {"torch": torch, "torch._utils": utils}


class _Writer(pickle._Pickler):  # type: ignore[name-defined]  # in Python: arrays are replaced
    def __init__(self, stream, storages, modules):
        super().__init__(stream, protocol=2)
        self.storages, self.modules = storages, modules

    def persistent_id(self, obj):  # type: ignore[override]
        if not isinstance(obj, _Storage):
            return None
        self.storages.append(obj.values)
        kind = {"float32": "FloatStorage", "int64": "LongStorage"}[str(obj.values.dtype)]
        storage = getattr(self.modules["torch"], kind)
        return ("storage", storage, str(len(self.storages) - 1), "cpu", obj.values.size)

    def reducer_override(self, obj):
        if not isinstance(obj, np.ndarray):
            return NotImplemented
        strides = tuple(step // obj.itemsize for step in np.ascontiguousarray(obj).strides)
        if obj.ndim == 0:
            strides = ()
        rebuild = self.modules["torch._utils"]._rebuild_tensor_v2
        storage = _Storage(np.ascontiguousarray(obj).reshape(-1))
        return rebuild, (storage, 0, obj.shape, strides, False, OrderedDict())
