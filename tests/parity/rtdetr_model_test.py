"""The network against RT-DETR and RT-DETR v2 of the transformers package, with random weights."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.rtdetr.architectures import architecture
from rtdetr.config import BackboneConfig, DecoderConfig, EncoderConfig, ModelConfig
from rtdetr.model.counts import parameter_counts
from rtdetr.model.deformable_attention import sample_maps
from rtdetr.model.detector import detect, init
from rtdetr.weights.names import entries, to_tree

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CLASSES = 7
BASIC = ModelConfig(
    backbone=BackboneConfig(
        block="basic",
        depths=(1, 2, 1, 1),
        stem=(8, 8, 16),
        widths=(16, 24, 32, 40),
        freeze_stem=False,
        freeze_norm=False,
    ),
    encoder=EncoderConfig(width=32, heads=4, feed_forward=48, expansion=0.5),
    decoder=DecoderConfig(
        width=32,
        heads=4,
        feed_forward=48,
        layers=3,
        queries=25,
        position_hidden=(64,),
        select_invalid=True,
    ),
)
BOTTLENECK = dataclasses.replace(
    BASIC,
    backbone=dataclasses.replace(BASIC.backbone, block="bottleneck", freeze_norm=True),
    encoder=dataclasses.replace(BASIC.encoder, expansion=1.0),
)
SILU = dataclasses.replace(
    BASIC, decoder=dataclasses.replace(BASIC.decoder, activation="silu", offset_scale=0.25)
)


def their_config(config, version):
    """Settings of theirs that make the network of `config`."""
    backbone, encoder, decoder = config.backbone, config.encoder, config.decoder
    bottleneck = backbone.block == "bottleneck"
    resnet = transformers.RTDetrResNetConfig(
        embedding_size=backbone.stem[2],
        hidden_sizes=[width * backbone.expansion for width in backbone.widths],
        depths=list(backbone.depths),
        layer_type=backbone.block,
        out_features=["stage2", "stage3", "stage4"],
    )
    kind = transformers.RTDetrV2Config if version == 2 else transformers.RTDetrConfig
    more = dict(decoder_offset_scale=decoder.offset_scale) if version == 2 else {}
    return kind(
        backbone_config=resnet,
        num_labels=CLASSES,
        freeze_backbone_batch_norms=bottleneck,
        encoder_in_channels=list(backbone.channels),
        encoder_hidden_dim=encoder.width,
        encoder_attention_heads=encoder.heads,
        encoder_ffn_dim=encoder.feed_forward,
        hidden_expansion=encoder.expansion,
        d_model=decoder.width,
        num_queries=decoder.queries,
        decoder_in_channels=[encoder.width] * 3,
        decoder_ffn_dim=decoder.feed_forward,
        decoder_n_points=decoder.points[0],
        decoder_layers=decoder.layers,
        decoder_attention_heads=decoder.heads,
        decoder_activation_function=decoder.activation,
        **more,
    )


def their_model(config, version):
    """A network of theirs, every array of which is random but for counters."""
    torch.set_num_threads(1)
    torch.manual_seed(5)
    kind = "RTDetrV2ForObjectDetection" if version == 2 else "RTDetrForObjectDetection"
    model = getattr(transformers, kind)(their_config(config, version)).eval()
    with torch.no_grad():
        for name, array in model.state_dict().items():
            if not array.is_floating_point() or "n_points_scale" in name:
                continue
            if name.endswith("running_var") or ("norm" in name and name.endswith("weight")):
                array.uniform_(0.6, 1.4)
            elif array.ndim > 1:
                array.normal_(0, (2.0 / array[0].numel()) ** 0.5)
            else:
                array.uniform_(-0.2, 0.2)
    return model


def our_tree(model, config):
    """Their arrays in our places; no weight of theirs is left over."""
    arrays = {name: array.numpy() for name, array in model.state_dict().items()}
    names = {entry.name for entry in entries(config)}
    # Heads have a second name, under the network itself.
    others = (name for name in arrays.keys() - names if name.startswith("model."))
    assert {name.rpartition(".")[2] for name in others} <= {"num_batches_tracked", "n_points_scale"}
    return to_tree({e.path: jnp.asarray(e.to_ours(arrays[e.name])) for e in entries(config)})


@pytest.mark.parametrize("canvas", [(96, 96), (96, 160)])
@pytest.mark.parametrize(
    "config, version",
    [(BASIC, 1), (BOTTLENECK, 1), (BASIC, 2), (SILU, 2)],
    ids=["basic", "bottleneck", "v2", "v2 with a smaller scale"],
)
def test_logits_boxes_and_selection_are_theirs(config, version, canvas):
    model = their_model(config, version)
    images = np.random.default_rng(9).integers(0, 256, (2, *canvas, 3)).astype(np.uint8)
    with torch.no_grad():
        theirs = model(torch.tensor(images).permute(0, 3, 1, 2).float() / 255)
    tree = our_tree(model, config)
    run = jax.jit(partial(detect, config, train=False))
    ours, _ = run(tree["params"], tree["statistics"], images)
    for layer in range(config.decoder.layers):
        wanted = theirs.intermediate_logits[:, layer].numpy()
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(ours.decoder.logits[layer], wanted, atol=2e-5 * scale)
        wanted = theirs.intermediate_reference_points[:, layer].numpy()
        np.testing.assert_allclose(ours.decoder.boxes.values[layer], wanted, atol=2e-5)
    np.testing.assert_allclose(ours.encoder.boxes.values, theirs.enc_topk_bboxes.numpy(), atol=2e-5)
    np.testing.assert_array_equal(
        np.asarray(ours.selected),
        torch.topk(theirs.enc_outputs_class.max(-1).values, config.decoder.queries).indices,
    )


@pytest.mark.parametrize("version", [1, 2])
def test_every_array_of_theirs_has_one_place_of_the_right_shape(version):
    tree = our_tree(their_model(BASIC, version), BASIC)
    params, statistics = jax.eval_shape(
        partial(init, config=BASIC, classes=CLASSES), jax.random.key(0)
    )
    wanted = jax.tree.map(lambda leaf: leaf.shape, {"params": params, "statistics": statistics})
    assert jax.tree.map(lambda leaf: leaf.shape, tree) == wanted


def test_the_default_network_has_as_many_parameters_as_theirs():
    with torch.device("meta"):
        model = transformers.RTDetrForObjectDetection(transformers.RTDetrConfig(num_labels=80))
    theirs = sum(array.numel() for array in model.parameters())
    assert theirs == sum(parameter_counts(ModelConfig(), 80).values()) == 42_891_372


@pytest.mark.parametrize(
    "name, millions", [("r18", 20), ("r34", 31), ("r50_m", 36), ("r50", 43), ("r101", 76)]
)
def test_published_networks_have_as_many_parameters_as_theirs(name, millions):
    settings = architecture(name)
    config = ModelConfig(
        backbone=BackboneConfig(**settings.get("backbone", {})),
        encoder=EncoderConfig(**settings.get("encoder", {})),
        decoder=DecoderConfig(**settings.get("decoder", {})),
    )
    with torch.device("meta"):
        model = transformers.RTDetrForObjectDetection(their_config(config, 1))
    ours = sum(parameter_counts(config, CLASSES).values())
    assert ours == sum(array.numel() for array in model.parameters())
    assert round(ours / 1e6) == millions


@pytest.mark.parametrize("method", ["gather", "packed", "onehot"])
def test_sampling_is_grid_sample(method):
    draw, sizes = np.random.default_rng(3), ((5, 7), (4, 3))
    values = [draw.normal(size=(2, h * w, 3, 4)).astype(np.float32) for h, w in sizes]
    locations = [draw.uniform(-0.3, 1.3, (2, 6, 3, 2, 2)).astype(np.float32) for _ in sizes]
    weights = [draw.uniform(size=(2, 6, 3, 2)).astype(np.float32) for _ in sizes]
    case = jax.tree.map(torch.tensor, (values, locations, weights))
    for leaf in jax.tree.leaves(case):
        leaf.requires_grad_()
    total = 0
    for value, location, weight, (height, width) in zip(*case, sizes):
        grid = value.permute(0, 2, 3, 1).reshape(6, 4, height, width)
        at = 2 * location.permute(0, 2, 1, 3, 4).reshape(6, 6, 2, 2) - 1
        read = torch.nn.functional.grid_sample(grid, at, padding_mode="zeros", align_corners=False)
        read = read.reshape(2, 3, 4, 6, 2)
        total = total + torch.einsum("bhdqp,bqhp->bqhd", read, weight)
    cotangent = draw.normal(size=(2, 6, 3, 4)).astype(np.float32)
    (total * torch.tensor(cotangent)).sum().backward()

    @jax.jit
    def both(case):
        found, pull = jax.vjp(lambda v, x, w: sample_maps(v, sizes, x, w, method), *case)
        return found, pull(jnp.asarray(cotangent))

    found, slopes = both((values, locations, weights))
    np.testing.assert_allclose(found, total.detach().numpy(), atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(slopes), jax.tree.leaves(case)):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=5e-5)
