"""RT-DETR of ours and of transformers, trained alike: the same network, start, images and steps.

Both begin with the same weights, see the same augmented batches in the same order, have the same
number of updates, AdamW with the same schedule, decay and clipping, and an average of the weights;
both are scored by the same COCO metrics on the same held-out split. What differs is what each does
by itself: denoising queries (packed here, padded to the batch there), the second look of a box,
tokens at the border, and the order of floating-point operations.

Run: python benchmarks/rtdetr_quality.py --config configs/rtdetr/bccd.py:small,data/bccd \
        [--split test] [--seeds 0 1 2] [--only ours|theirs] [--config.total.updates=N ...]

It needs the parity extra; each of the two takes as long as the recipe says.
"""

# ruff: noqa: E402
from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# This file has the name of a package of ours: look for packages one folder up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import jax
import numpy as np

from rtdetr.config import Config
from rtdetr.evaluation import dataset_of
from rtdetr.inference import in_image_pixels
from rtdetr.model.detector import init
from rtdetr.scoring.coco_ap import score
from rtdetr.weights.names import entries
from training.config import TrainConfig
from training.loop import fit
from training.mesh import Layout, make_mesh
from training.program import Program
from training.registry import load_config, make_task
from training.schedules import ema_decay
from training.stream import ExampleStream

SHOWN = ("AP", "AP50", "AP75")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", choices=["ours", "theirs"])
    parser.add_argument("--output", help="folder that keeps the runs")
    args, overrides = parser.parse_known_args()
    sides = [args.only] if args.only else ["ours", "theirs"]
    folder = Path(args.output or tempfile.mkdtemp())
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for seed in args.seeds:
        for side in sides:
            settings = [override.removeprefix("--config.") for override in overrides]
            settings += [f"seed={seed}", f"data.eval_split={args.split}"]
            task = make_task(load_config(args.config, settings))
            started, cpu = time.perf_counter(), time.process_time()
            run = _ours if side == "ours" else _theirs
            metrics = run(task, folder / f"{side}_{seed}")
            metrics["minutes"] = (time.perf_counter() - started) / 60
            metrics["CPU-minutes"] = (time.process_time() - cpu) / 60
            found[side].append(metrics)
            print(side, "seed", seed, json.dumps({k: round(v, 4) for k, v in metrics.items()}))
            sys.stdout.flush()
    _print(found)


def _print(found: dict[str, list[dict[str, float]]]) -> None:
    names = [*SHOWN, "minutes", "CPU-minutes"]
    print(f"{'':<8}" + "".join(f"{name:>14}" for name in names) + "   (median over seeds)")
    medians = {}
    for side, rows in found.items():
        medians[side] = {name: statistics.median(row[name] for row in rows) for name in names}
        print(f"{side:<8}" + "".join(f"{medians[side][name]:>14.4f}" for name in names))
    if len(medians) == 2:
        ratios = [medians["ours"][n] / max(medians["theirs"][n], 1e-9) for n in names]
        print(f"{'ratio':<8}" + "".join(f"{ratio:>14.3f}" for ratio in ratios))


def _ours(task: Any, workdir: Path) -> dict[str, float]:
    fit(task, workdir, [], [])
    last = sorted((workdir / "eval").glob("*.json"), key=lambda path: int(path.stem))[-1]
    row = json.loads(last.read_text())
    return {name: row[name] for name in SHOWN} | {"raw AP50": row["AP50_raw"]}


def _theirs(task: Any, workdir: Path) -> dict[str, float]:
    import torch

    config: Config = task.config
    program = Program(task, Layout(make_mesh(config.mesh)))
    total, optimizer = program.total_updates, program.optimizer
    model = _same_network(task)
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = _parameter_groups(model, optimizer, config)
    adam = torch.optim.AdamW(
        [{"params": g["params"], "weight_decay": g["decay"]} for g in groups],
        lr=1.0,
        betas=(config.optimizer.b1, config.optimizer.b2),
        eps=config.optimizer.eps,
    )
    decay = ema_decay(config.ema, total)
    rows = np.arange(config.batch_size)
    source = task.sources().train
    stream = ExampleStream(source, config.seed, config.batch_size, rows, config.loader)
    reads = stream.reads(range(total))
    for step, loaded in enumerate(reads):
        batch = stream.stack(step, loaded)
        for group, made in zip(adam.param_groups, groups):
            group["lr"] = float(optimizer.schedules[made["label"]](step))
        adam.zero_grad()
        loss = model(_pixels(batch["image"]), labels=_labels(batch)).loss
        loss.backward()
        if config.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        adam.step()
        if decay is not None:
            _average(average, model.state_dict(), float(decay(step)))
        if step % 100 == 0:
            print(f"theirs {step}/{total} loss {float(loss):.3f}", flush=True)
    stream.close()
    raw = _scores(task, model)
    if decay is not None:
        model.load_state_dict(average)
    return _scores(task, model) | {"raw AP50": raw["AP50"]}


def _average(average: dict[str, Any], state: dict[str, Any], decay: float) -> None:
    for name, tensor in state.items():
        if tensor.dtype.is_floating_point:
            average[name].mul_(decay).add_(tensor, alpha=1 - decay)
        else:
            average[name].copy_(tensor)


def _pixels(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def _labels(batch: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    import torch

    return [
        {
            "class_labels": torch.from_numpy(labels[labels >= 0].astype(np.int64)),
            "boxes": torch.from_numpy(boxes[labels >= 0]),
        }
        for boxes, labels in zip(batch["boxes"], batch["labels"])
    ]


def _same_network(task: Any) -> Any:
    """Transformers' network of the same shape, with our initial weights of this seed."""
    import torch
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    config: Config = task.config
    model, loss = config.model, config.loss
    backbone, encoder, decoder = model.backbone, model.encoder, model.decoder
    hidden = [width * backbone.expansion for width in backbone.widths]
    theirs = RTDetrForObjectDetection(
        RTDetrConfig(
            backbone_config=RTDetrResNetConfig(
                embedding_size=backbone.stem[-1],
                hidden_sizes=hidden,
                depths=list(backbone.depths),
                layer_type=backbone.block,
                out_features=["stage2", "stage3", "stage4"],  # type: ignore[call-arg]
            ),
            freeze_backbone_batch_norms=backbone.freeze_norm,
            encoder_in_channels=hidden[1:],
            encoder_hidden_dim=encoder.width,
            encoder_ffn_dim=encoder.feed_forward,
            encoder_attention_heads=encoder.heads,
            encoder_layers=encoder.layers,
            hidden_expansion=encoder.expansion,
            d_model=decoder.width,
            decoder_in_channels=[encoder.width] * 3,
            decoder_ffn_dim=decoder.feed_forward,
            decoder_attention_heads=decoder.heads,
            decoder_layers=decoder.layers,
            decoder_activation_function=decoder.activation,
            num_queries=decoder.queries,
            num_denoising=loss.denoising.slots,
            label_noise_ratio=loss.denoising.label_noise,
            box_noise_scale=loss.denoising.box_noise,
            num_labels=task.class_count,  # type: ignore[call-arg]
            anchor_image_size=None,
            eval_size=None,
        )
    )
    if encoder.blocks != 3:
        _fewer_blocks(theirs, encoder.blocks)
    key = jax.random.key(config.seed)
    params, statistics = init(jax.random.fold_in(key, 0), model, task.class_count)
    ours = _flat({"params": params, "statistics": statistics})
    state = theirs.state_dict()
    for entry in entries(model):
        array = np.array(entry.to_theirs(np.asarray(ours.pop(entry.path))), np.float32)
        assert state[entry.name].shape == array.shape, entry.name
        state[entry.name] = torch.from_numpy(array)
    assert not ours, f"arrays without a place in transformers: {sorted(ours)[:3]}"
    theirs.load_state_dict(state)
    return theirs.train()


def _fewer_blocks(model: Any, blocks: int) -> None:
    """Transformers has no setting for the RepVGG blocks of a fusion: the last ones are cut off."""
    for fusion in (*model.model.encoder.fpn_blocks, *model.model.encoder.pan_blocks):
        fusion.bottlenecks = fusion.bottlenecks[:blocks]


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    flat: dict[str, Any] = {}
    for name, child in tree.items():
        flat |= _flat(child, f"{path}/{name}" if path else name)
    return flat


def _parameter_groups(model: Any, optimizer: Any, config: TrainConfig) -> list[dict[str, Any]]:
    """Torch parameters by our group and decay."""
    table = {path: (label, decays) for path, label, decays in optimizer.decay_table()}
    groups: dict[tuple[str, bool], list[Any]] = {}
    named = dict(model.named_parameters())
    for entry in entries(config.model):  # type: ignore[attr-defined]
        path = entry.path.removeprefix("params/")
        if entry.name in named and path in table:
            groups.setdefault(table[path], []).append(named[entry.name])
    return [
        {"params": params, "label": label, "decay": optimizer.weight_decay[label] * decays}
        for (label, decays), params in groups.items()
        if label in optimizer.schedules
    ]


def _scores(task: Any, model: Any) -> dict[str, float]:
    import torch

    config: Config = task.config
    (source,) = task.sources().evaluation.values()
    dataset = dataset_of(source)
    model.eval()
    rows: dict[str, list[np.ndarray]] = {"scores": [], "labels": [], "boxes": []}
    with torch.no_grad():
        for start in range(0, len(source), config.evaluation.batch_size):
            stop = min(start + config.evaluation.batch_size, len(source))
            images = np.stack([source[index]["image"] for index in range(start, stop)])
            out = model(_pixels(images))
            scores = out.logits.sigmoid().flatten(1)
            top, index = scores.topk(min(config.scoring.detections, scores.shape[1]))
            classes = out.logits.shape[-1]
            rows["scores"].append(top.numpy())
            rows["labels"].append((index % classes).numpy())
            chosen = (index // classes)[..., None].expand(-1, -1, 4)
            rows["boxes"].append(out.pred_boxes.gather(1, chosen).numpy())
    model.train()
    joined = {name: np.concatenate(parts) for name, parts in rows.items()}
    sizes = [dataset.size(index) for index in range(len(source))]
    found, _ = in_image_pixels(joined, sizes, config.data.size, config.data.resize)
    objects = [dataset.objects(index) for index in range(len(source))]
    coco = score(found, objects, task.class_count, config.scoring.max_detections)
    return {name: coco.metrics[name] for name in SHOWN}


if __name__ == "__main__":
    main()
