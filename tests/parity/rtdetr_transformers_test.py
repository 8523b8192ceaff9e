"""An exported detector is the same network in transformers; files of PyTorch are read alike."""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rtdetr.data.dataset import ClassTable
from rtdetr.export import export
from rtdetr.model.detector import detect
from rtdetr.weights import imported
from training.checkpoint.restore import restored
from training.torch_file import read_torch_file
from training.weight_files import read_safetensors

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

NAMES = ClassTable(("cat", "dog", "bird"), (0, 1, 2))
SIZE = (96, 128)  # a rectangle: positions of another order would show


def their_model(kind, layer_type):
    """A small network with weights at which nothing vanishes."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    v2 = kind == "v2"
    config_class = transformers.RTDetrV2Config if v2 else transformers.RTDetrConfig
    model_class = (
        transformers.RTDetrV2ForObjectDetection if v2 else transformers.RTDetrForObjectDetection
    )
    expansion = 4 if layer_type == "bottleneck" else 1
    widths = [width * expansion for width in (8, 16, 24, 32)]
    config = config_class(
        backbone_config=transformers.RTDetrResNetConfig(
            embedding_size=8,
            hidden_sizes=widths,
            depths=[1, 2, 1, 1],
            layer_type=layer_type,
            out_indices=[2, 3, 4],
        ),
        id2label=dict(enumerate(NAMES.names)),
        encoder_in_channels=widths[1:],
        encoder_hidden_dim=16,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=32,
        decoder_attention_heads=2,
        decoder_layers=2,
        num_queries=12,
        freeze_backbone_batch_norms=layer_type == "bottleneck",
        **({"decoder_offset_scale": 0.25} if v2 else {}),
    )
    model = model_class(config).eval()
    draw = np.random.default_rng(5)
    state = {}
    for name, value in model.state_dict().items():
        if not value.is_floating_point() or "n_points_scale" in name:
            continue
        noise = draw.normal(0, 1, tuple(value.shape)).astype(np.float32)
        if value.ndim == 1:
            scale = "norm" in name or ".1.weight" in name or "running_var" in name
            noise = 0.2 * noise + (1.0 if scale and not name.endswith("bias") else 0.0)
            noise = np.abs(noise) + 0.3 if "running_var" in name else noise
        else:
            noise *= (2 / max(noise[0].size, 1)) ** 0.5
        state[name] = torch.from_numpy(noise)
    model.load_state_dict(state, strict=False)
    return model


@pytest.mark.parametrize(
    "kind, layer_type", [("v1", "bottleneck"), ("v1", "basic"), ("v2", "basic")]
)
def test_logits_agree_and_an_export_is_the_import_to_the_bit(tmp_path, kind, layer_type):
    theirs = their_model(kind, layer_type)
    theirs.save_pretrained(tmp_path / "theirs")
    given = argparse.Namespace(
        source=tmp_path / "theirs",
        workdir=str(tmp_path / "run"),
        config=None,
        overrides=[],
        classes=None,
        backbone_only=False,
    )
    imported.import_weights(given)
    program, state, step = restored(given.workdir, "latest")
    args = argparse.Namespace(
        workdir=given.workdir, format="safetensors", output=tmp_path / "exported"
    )
    export(program, state, step, args)
    before, after = (
        read_safetensors(tmp_path / name / "model.safetensors") for name in ("theirs", "exported")
    )
    assert before.keys() == after.keys()
    for name, value in before.items():
        if "num_batches_tracked" not in name:
            np.testing.assert_array_equal(after[name], value, err_msg=name)

    opened, info = transformers.AutoModelForObjectDetection.from_pretrained(
        tmp_path / "exported", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert opened.config.id2label == dict(enumerate(NAMES.names))
    image = np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), np.uint8)
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
        wanted = opened.eval()(pixels)
    model = program.task.config.model
    found, _ = jax.jit(lambda p, s, x: detect(model, p, s, x, train=False))(
        state.ema["params"], state.ema["statistics"], jnp.asarray(image)
    )
    logits, boxes = (np.asarray(x[-1]) for x in (found.decoder.logits, found.decoder.boxes.values))
    assert wanted.logits.std() > 0.1
    np.testing.assert_allclose(logits, wanted.logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(boxes, wanted.pred_boxes.numpy(), atol=1e-5)


def test_a_file_of_torch_is_read_as_torch_reads_it(tmp_path):
    model = their_model("v1", "basic")
    path = tmp_path / "file.pth"
    torch.save({"ema": {"module": model.state_dict()}, "step": 3}, path)
    found, wanted = read_torch_file(path), model.state_dict()
    assert found["step"] == 3
    arrays = found["ema"]["module"]
    assert list(arrays) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(arrays[name], value.numpy(), err_msg=name)
    turned = torch.arange(12.0).reshape(3, 4).T[1:, ::2]
    torch.save(turned, path)
    np.testing.assert_array_equal(read_torch_file(path), turned.numpy())
