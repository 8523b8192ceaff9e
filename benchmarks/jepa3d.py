"""One pretraining update of V-JEPA3D against the transformers V-JEPA 2 layers, on a CPU.

Run: python benchmarks/jepa3d.py [--rounds 15] [--threads 1]

Both sides do the same work on the same weights, volumes and masks: target encoder on all tokens,
encoder on the visible tokens, predictor, L1 against normalized targets, backward pass, AdamW,
moving average. The reference class has no visible-only path, so its layers are composed into one.
Rounds alternate; medians are compared, because the machine may be busy. Loss values of the first
update must agree.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

# This file has the name of the package that it measures: look for packages one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

BATCH = 2
LEARNING_RATE, WEIGHT_DECAY, MOMENTUM = 1e-4, 0.04, 0.996


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of a V-JEPA3D update.")
    parser.add_argument("--rounds", type=int, default=15, help="timed updates of each side")
    # One thread by default: with more, OpenMP's spinning barriers punish torch on a shared machine.
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    # Before jax and torch load, so that both get the same threads.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    ours, weights, data = build_ours()
    sides = {"ours": ours}
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        sides["transformers"] = build_reference(weights, data, arguments.threads)
    else:
        print("peer missing: install the parity extra (torch, transformers) to compare")
    report(sides, arguments.rounds)


def report(sides: dict[str, Callable[[], float]], rounds: int) -> None:
    """Times the sides in turn and prints a table with the ratio of medians."""
    first = {name: update() for name, update in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, update in sides.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            update()
            seconds[name].append(time.perf_counter() - wall_start)
            cpu[name].append(time.process_time() - cpu_start)
    print(
        f"{'side':14} {'first loss':>12} {'ms median':>10} {'ms best':>8} {'cpu ms':>8} volumes/s"
    )
    for name in sides:
        wall = statistics.median(seconds[name])
        busy = statistics.median(cpu[name])
        print(
            f"{name:14} {first[name]:12.6f} {wall * 1e3:10.1f} {min(seconds[name]) * 1e3:8.1f} "
            f"{busy * 1e3:8.1f} {BATCH / wall:9.2f}"
        )
    if len(sides) == 2:
        wall_ratio, cpu_ratio = (
            statistics.median(measured["transformers"]) / statistics.median(measured["ours"])
            for measured in (seconds, cpu)
        )
        print(f"speed of ours over transformers: {wall_ratio:.2f}x (cpu time {cpu_ratio:.2f}x)")
        print(f"difference of first losses: {abs(first['ours'] - first['transformers']):.1e}")


def benchmark_config():
    from jepa3d.config import ModelConfig, TransformerConfig

    return ModelConfig(
        volume=(32, 128, 128),
        encoder=TransformerConfig(192, 4, 3),
        predictor=TransformerConfig(96, 4, 3),
        unroll=True,
    )


def build_ours():
    """Returns (update function, exported weights, (volumes, mask ids)) of our side."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jepa3d.config import LossConfig
    from jepa3d.losses import jepa_loss
    from jepa3d.masks import mask_preset, sample_masks
    from jepa3d.model.jepa import init_params, predict
    from jepa3d.vjepa2_weights import export_weights

    config = benchmark_config()
    key = jax.random.key(0)
    params = init_params(key, config)
    weights = export_weights(jax.device_get(params), config)
    volumes = jax.random.normal(key, (BATCH, *config.volume, 1))
    masks = []
    for index, mask in enumerate(mask_preset("default", config.grid)):
        keys = jax.random.split(jax.random.fold_in(key, index), BATCH)

        def sample(k, mask=mask):
            return sample_masks(k, config.grid, mask)

        masks.append(jax.vmap(sample)(keys))
    decay = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
    optimizer = optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY, mask=decay)
    state = {
        "params": params,
        "optimizer": optimizer.init(params),
        # A copy: donated buffers must not be shared.
        "target": {"encoder": jax.tree.map(jnp.copy, params["encoder"])},
    }

    def update(state, volumes, masks):
        def loss(params):
            prediction = predict(config, params, state["target"], volumes, masks)
            out = jepa_loss(prediction, LossConfig(), config.grid)
            return sum(term.sum / term.weight for term in out.prediction) / len(masks)

        value, gradient = jax.value_and_grad(loss)(state["params"])
        change, moments = optimizer.update(gradient, state["optimizer"], state["params"])
        params = cast(dict, optax.apply_updates(state["params"], change))
        target = jax.tree.map(
            lambda t, p: MOMENTUM * t + (1 - MOMENTUM) * p,
            state["target"]["encoder"],
            params["encoder"],
        )
        new = {
            "params": params,
            "optimizer": moments,
            "target": {"encoder": target},
        }
        return new, value

    compiled = jax.jit(update, donate_argnums=0)
    holder = [state]

    def step() -> float:
        holder[0], value = compiled(holder[0], volumes, masks)
        return float(jax.block_until_ready((holder[0], value))[1])

    host_masks = [tuple(np.array(ids) for ids in pair) for pair in masks]
    return step, weights, (np.array(volumes), host_masks)


def build_reference(weights, data, threads: int) -> Callable[[], float]:
    """The same update on the layers of transformers, in torch."""
    import copy

    import torch
    from transformers import VJEPA2Config, VJEPA2Model

    torch.set_num_threads(threads)
    config = benchmark_config()
    model = VJEPA2Model(
        VJEPA2Config(
            patch_size=config.patch[1],
            crop_size=config.volume[1],
            frames_per_clip=config.volume[0],
            tubelet_size=config.patch[0],
            in_chans=1,
            hidden_size=config.encoder.dim,
            num_attention_heads=config.encoder.heads,
            num_hidden_layers=config.encoder.depth,
            pred_hidden_size=config.predictor.dim,
            pred_num_attention_heads=config.predictor.heads,
            pred_num_hidden_layers=config.predictor.depth,
            pred_num_mask_tokens=config.mask_tokens,
            attn_implementation="sdpa",  # pyright: ignore[reportCallIssue] taken as **kwargs
        )
    )
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    target_encoder = copy.deepcopy(model.encoder).requires_grad_(False)
    kernels = [p for p in model.parameters() if p.ndim in (2, 5)]
    others = [p for p in model.parameters() if p.ndim not in (2, 5)]
    groups = [
        {"params": kernels, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
    clip = torch.tensor(data[0]).permute(0, 1, 4, 2, 3)
    masks = [tuple(torch.tensor(ids, dtype=torch.long) for ids in pair) for pair in data[1]]

    def gather(tokens, ids):
        return torch.gather(tokens, 1, ids[..., None].expand(-1, -1, tokens.shape[-1]))

    def run(layers, tokens, ids):
        for layer in layers:
            tokens = layer(tokens, ids)[0]
        return tokens

    def loss():
        encoder, predictor = model.encoder, model.predictor
        with torch.no_grad():
            target = target_encoder(clip).last_hidden_state
            target = torch.nn.functional.layer_norm(target, target.shape[-1:])
        embedded = encoder.embeddings(clip)
        total = torch.zeros(())
        for index, (context_ids, target_ids) in enumerate(masks):
            visible = run(encoder.layer, gather(embedded, context_ids), context_ids)
            tokens = predictor.embeddings.predictor_embeddings(encoder.layernorm(visible))
            mask = predictor.embeddings.mask_tokens[index].expand(*target_ids.shape, -1)
            ids = torch.cat([context_ids, target_ids], dim=1)
            tokens = run(predictor.layer, torch.cat([tokens, mask], dim=1), ids)
            tokens = predictor.layernorm(tokens)[:, context_ids.shape[1] :]
            total = total + (predictor.proj(tokens) - gather(target, target_ids)).abs().mean()
        return total / len(masks)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            targets: list[torch.Tensor] = list(target_encoder.parameters())
            online: list[torch.Tensor] = list(model.encoder.parameters())
            # The fused loop over tensors is what torch's own optimizers use, but is not exported.
            torch._foreach_mul_(targets, MOMENTUM)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(  # pyright: ignore[reportPrivateImportUsage]
                targets, online, alpha=1 - MOMENTUM
            )
        return value.item()

    return step


if __name__ == "__main__":
    main()
