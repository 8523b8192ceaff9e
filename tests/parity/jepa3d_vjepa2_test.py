"""Our model against the V-JEPA 2 of the transformers package, float32 on a CPU."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jepa3d.config import (
    DataConfig,
    LossConfig,
    ModelConfig,
    PrepareSettings,
    TransformerConfig,
)
from jepa3d.losses import jepa_loss
from jepa3d.model.jepa import encode, predict, predict_targets
from jepa3d.model.pooler import pool
from jepa3d.model_folder import TrainedModel, read, write
from jepa3d.vjepa2_weights import export_weights, import_weights

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
vjepa2 = pytest.importorskip("transformers.models.vjepa2.modeling_vjepa2")
transformers = pytest.importorskip("transformers")

CONFIG = ModelConfig(
    volume=(8, 64, 64),
    patch=(2, 16, 16),
    channels=3,
    encoder=TransformerConfig(48, 3, 4),
    predictor=TransformerConfig(24, 2, 2),
    mask_tokens=3,
)
POOLER_LAYERS = 2


@pytest.fixture(scope="module")
def reference():
    """A small random model in which no bias, scale or mask token is at its trivial value."""
    torch.manual_seed(0)
    config = transformers.VJEPA2Config(
        patch_size=16,
        crop_size=64,
        frames_per_clip=8,
        tubelet_size=2,
        hidden_size=48,
        in_chans=3,
        num_attention_heads=4,
        num_hidden_layers=3,
        drop_path_rate=0.0,
        mlp_ratio=4.0,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=2,
        pred_num_mask_tokens=3,
        num_pooler_layers=POOLER_LAYERS,
        num_labels=5,
    )
    model = vjepa2.VJEPA2ForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def state(reference):
    return {name: value.numpy() for name, value in reference.state_dict().items()}


@pytest.fixture(scope="module")
def params(state):
    tensors = {name: value for name, value in state.items() if "classifier" not in name}
    return import_weights(tensors, CONFIG, pooler_layers=POOLER_LAYERS)


@pytest.fixture(scope="module")
def volumes():
    return np.random.default_rng(1).standard_normal((2, 8, 64, 64, 3)).astype(np.float32)


def as_clip(volumes):
    return torch.from_numpy(volumes).permute(0, 1, 4, 2, 3)


@pytest.fixture(scope="module")
def masks():
    rng = np.random.default_rng(2)
    order = np.stack([rng.permutation(64) for _ in range(2)])
    return np.sort(order[:, :20], axis=1), np.sort(order[:, 30:], axis=1)


def greatest_difference(ours, theirs) -> float:
    return float(np.abs(np.asarray(ours) - theirs.detach().numpy()).max())


def test_encoder_features_agree(reference, params, volumes):
    with torch.no_grad():
        theirs = reference.vjepa2(as_clip(volumes), skip_predictor=True).last_hidden_state
    ours = encode(CONFIG, params["encoder"], jnp.asarray(volumes))
    difference = greatest_difference(ours, theirs)
    print(f"encoder: greatest difference {difference:.2e} on a scale of {theirs.abs().max():.1f}")
    assert difference < 1e-5


def test_rope_variants_differ(reference, params, volumes):
    with torch.no_grad():
        theirs = reference.vjepa2(as_clip(volumes), skip_predictor=True).last_hidden_state
    other = dataclasses.replace(CONFIG, rope="interleaved")
    ours = encode(other, params["encoder"], jnp.asarray(volumes))
    assert greatest_difference(ours, theirs) > 1e-2


def test_predictor_agrees_on_partial_masks(reference, params, volumes, masks):
    context, target = (torch.from_numpy(ids) for ids in masks)
    with torch.no_grad():
        out = reference.vjepa2(as_clip(volumes), context_mask=[context], target_mask=[target])
        visible = out.masked_hidden_state
        theirs = out.predictor_output.last_hidden_state
    ours, _ = predict_targets(
        CONFIG,
        params["predictor"],
        jnp.asarray(visible.numpy()),
        jnp.asarray(masks[0]),
        jnp.asarray(masks[1]),
        mask_index=1,
    )
    difference = greatest_difference(ours, theirs)
    print(f"predictor: greatest difference {difference:.2e}")
    assert difference < 1e-5


def test_pooler_and_classifier_agree(reference, params, state, volumes):
    with torch.no_grad():
        theirs = reference(as_clip(volumes)).logits
    features = encode(CONFIG, params["encoder"], jnp.asarray(volumes))
    pooled = pool(CONFIG, params["pooler"], features)
    ours = pooled @ state["classifier.weight"].T + state["classifier.bias"][None]
    difference = greatest_difference(ours, theirs)
    print(f"classifier: greatest difference {difference:.2e}")
    assert difference < 1e-5


def layers_at(layers, tokens, ids):
    for layer in layers:
        tokens = layer(tokens, ids)[0]
    return tokens


def gather(tokens, ids):
    return torch.gather(tokens, 1, ids[..., None].expand(-1, -1, tokens.shape[-1]))


def torch_training_loss(model, clip, context_ids, target_ids, mask_index):
    """One V-JEPA 2 training loss from the formulas, on the reference's layers.

    The published transformers class has no visible-only path, so its layers are called one by one.
    """
    encoder, predictor = model.vjepa2.encoder, model.vjepa2.predictor
    with torch.no_grad():
        target = model.vjepa2(clip, skip_predictor=True).last_hidden_state
        target = torch.nn.functional.layer_norm(target, target.shape[-1:])
        target = gather(target, target_ids)
    visible = gather(encoder.embeddings(clip), context_ids)
    visible = encoder.layernorm(layers_at(encoder.layer, visible, context_ids))
    tokens = predictor.embeddings.predictor_embeddings(visible)
    mask = predictor.embeddings.mask_tokens[mask_index].expand(*target_ids.shape, -1)
    ids = torch.cat([context_ids, target_ids], dim=1)
    tokens = layers_at(predictor.layer, torch.cat([tokens, mask], dim=1), ids)
    tokens = predictor.layernorm(tokens)[:, context_ids.shape[1] :]
    return (predictor.proj(tokens) - target).abs().mean()


def test_loss_and_every_gradient_of_a_training_step_agree(reference, params, volumes, masks):
    context, target = (torch.from_numpy(ids) for ids in masks)
    reference.zero_grad()
    expected = torch_training_loss(reference, as_clip(volumes), context, target, 0)
    expected.backward()
    ids = [(jnp.asarray(masks[0]), jnp.asarray(masks[1]))]
    trained = {"encoder": params["encoder"], "predictor": params["predictor"]}

    def loss(trained):
        prediction = predict(CONFIG, trained, {"encoder": params["encoder"]}, volumes, ids)
        (term,) = jepa_loss(prediction, LossConfig(), CONFIG.grid).prediction
        return term.sum / term.weight

    value, gradient = jax.value_and_grad(loss)(trained)
    ours = export_weights(gradient, CONFIG)
    named = dict(reference.vjepa2.named_parameters())
    assert ours.keys() == named.keys()
    worst = max(greatest_difference(ours[name], named[name].grad) for name in named)
    largest = max(float(parameter.grad.abs().max()) for parameter in named.values())
    print(
        f"training step: loss {float(value):.6f} and {expected.item():.6f}, "
        f"worst gradient error {worst:.1e} of {largest:.1e} over {len(named)} tensors"
    )
    assert float(value) == pytest.approx(expected.item(), abs=2e-6)
    assert worst < 1e-6


def test_weights_survive_the_round_trip_in_both_namings(state, params):
    tensors = {name: value for name, value in state.items() if "classifier" not in name}
    back = export_weights(params, CONFIG, pooler_layers=POOLER_LAYERS)
    assert back.keys() == {name.removeprefix("vjepa2.") for name in tensors}
    for name, value in tensors.items():
        np.testing.assert_array_equal(back[name.removeprefix("vjepa2.")], value)


def test_an_exported_folder_opens_with_from_pretrained(params, tmp_path):
    """Gray volumes of tokens of 4 slices, as the recipes have them: no weight is missing or left.

    The tokens that transformers computes are ours.
    """
    model = dataclasses.replace(CONFIG, patch=(4, 16, 16), channels=1, mask_tokens=3)
    patch = np.random.default_rng(3).standard_normal((4 * 16 * 16, 48)).astype(np.float32) / 30
    encoder = params["encoder"] | {"patch": params["encoder"]["patch"] | {"kernel": patch}}
    preparation = PrepareSettings(shape=model.volume, patch=model.patch)
    trained = TrainedModel(model, DataConfig(), preparation, encoder, 7)
    write(tmp_path, trained, params["predictor"], "a card")
    theirs, loading = vjepa2.VJEPA2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values()), loading
    assert type(transformers.AutoModel.from_pretrained(tmp_path)) is type(theirs)
    volumes = np.random.default_rng(4).standard_normal((2, 8, 64, 64, 1)).astype(np.float32)
    with torch.no_grad():
        expected = theirs.eval()(as_clip(volumes), skip_predictor=True).last_hidden_state
    again = read(tmp_path)
    assert again.model == model and again.step == 7 and again.preparation.shape == model.volume
    ours = encode(again.model, again.encoder, jnp.asarray(volumes))
    difference = greatest_difference(ours, expected)
    print(f"exported model: greatest difference {difference:.2e}")
    assert difference < 1e-5
