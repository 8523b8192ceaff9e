"""G-HOP's names of parameters beside ours, one by one.

The U-Net is OpenAI's with SDFusion's three dimensions (`input_blocks`, `middle_block`,
`output_blocks`), the autoencoder that of latent diffusion (`down`, `mid`, `up`). The names follow
from descriptions of that code; no released file was at hand to check them against.

Paths here end in the layer; `entries` adds kernel and bias. Kinds: `conv` kernels (out, in, D, H,
W), `dense` kernels (out, in), `norm`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hand_object.prior.model.unet import UnetConfig
from hand_object.prior.model.vqvae import VqvaeConfig

UNET, AUTOENCODER, TEXT = "glide_model.", "ae.model.", "glide_model.text_cond_model."


class Layer(NamedTuple):
    """A layer under both names."""

    theirs: str
    ours: str
    kind: str
    bias: bool = True


class Entry(NamedTuple):
    """An array under both names, and how it is turned."""

    theirs: str
    ours: str
    kind: str

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        if self.kind == "conv":
            return array.transpose(2, 3, 4, 1, 0)
        return array.T if self.kind == "dense" else array


def entries(unet: UnetConfig, autoencoder: VqvaeConfig) -> list[Entry]:
    """Every array of the prior."""
    layers = [
        layer._replace(theirs=f"{prefix}{layer.theirs}", ours=f"{ours}/{layer.ours}")
        for prefix, ours, own in (
            (UNET, "unet", unet_layers(unet)),
            (AUTOENCODER, "autoencoder", autoencoder_layers(autoencoder)),
        )
        for layer in own
    ]
    found = [Entry(f"{AUTOENCODER}quantize.embedding.weight", "autoencoder/codebook", "as it is")]
    for layer in layers:
        weight = "scale" if layer.kind == "norm" else "kernel"
        found.append(Entry(f"{layer.theirs}.weight", f"{layer.ours}/{weight}", layer.kind))
        if layer.bias:
            found.append(Entry(f"{layer.theirs}.bias", f"{layer.ours}/bias", "as it is"))
    return found


def unet_layers(config: UnetConfig) -> Iterator[Layer]:
    yield Layer("time_embed.0", "time_in", "dense")
    yield Layer("time_embed.2", "time_out", "dense")
    yield Layer("input_blocks.0.0", "first", "conv")
    number, width = 1, config.width
    kept = [width]
    for level, multiple in enumerate(config.multiples):
        out = multiple * config.width
        for block in range(config.blocks):
            attended = level in config.attended
            name = f"down_{level}_{block}"
            yield from _unet_block(f"input_blocks.{number}", name, width != out, attended)
            number, width = number + 1, out
            kept.append(width)
        if level < config.levels - 1:
            yield Layer(f"input_blocks.{number}.0.op", f"down_{level}_smaller", "conv")
            number += 1
            kept.append(width)
    yield from _residual("middle_block.0", "middle_0", False)
    if config.attended:
        yield from _transformer("middle_block.1", "middle_0_attention")
    last = 2 if config.attended else 1
    yield from _residual(f"middle_block.{last}", "middle_1", False)
    number = 0
    for level in reversed(range(config.levels)):
        out, attended = config.multiples[level] * config.width, level in config.attended
        for block in range(config.blocks + 1):
            theirs = f"output_blocks.{number}"
            # What was kept is concatenated.
            shortcut = width + kept.pop() != out
            yield from _unet_block(theirs, f"up_{level}_{block}", shortcut, attended)
            width = out
            if level and block == config.blocks:
                yield Layer(f"{theirs}.{1 + attended}.conv", f"up_{level}_larger", "conv")
            number += 1
    yield Layer("out.0", "norm_last", "norm")
    yield Layer("out.2", "last", "conv")


def _unet_block(theirs: str, ours: str, shortcut: bool, attended: bool) -> Iterator[Layer]:
    yield from _residual(f"{theirs}.0", ours, shortcut)
    if attended:
        yield from _transformer(f"{theirs}.1", f"{ours}_attention")


def _residual(theirs: str, ours: str, shortcut: bool) -> Iterator[Layer]:
    yield Layer(f"{theirs}.in_layers.0", f"{ours}/norm_in", "norm")
    yield Layer(f"{theirs}.in_layers.2", f"{ours}/conv_in", "conv")
    yield Layer(f"{theirs}.emb_layers.1", f"{ours}/time", "dense")
    yield Layer(f"{theirs}.out_layers.0", f"{ours}/norm_out", "norm")
    yield Layer(f"{theirs}.out_layers.3", f"{ours}/conv_out", "conv")
    if shortcut:
        yield Layer(f"{theirs}.skip_connection", f"{ours}/shortcut", "conv")


def _transformer(theirs: str, ours: str) -> Iterator[Layer]:
    yield Layer(f"{theirs}.norm", f"{ours}/norm", "norm")
    yield Layer(f"{theirs}.proj_in", f"{ours}/in", "conv")
    inside = f"{theirs}.transformer_blocks.0"
    for their_part, part in (("attn1", "self"), ("attn2", "cross")):
        for letter, name in (("q", "query"), ("k", "key"), ("v", "value")):
            yield Layer(
                f"{inside}.{their_part}.to_{letter}", f"{ours}/{part}/{name}", "dense", False
            )
        yield Layer(f"{inside}.{their_part}.to_out.0", f"{ours}/{part}/out", "dense")
    yield Layer(f"{inside}.ff.net.0.proj", f"{ours}/feed_forward/inner", "dense")
    yield Layer(f"{inside}.ff.net.2", f"{ours}/feed_forward/out", "dense")
    for number in (1, 2, 3):
        yield Layer(f"{inside}.norm{number}", f"{ours}/norm_{number}", "norm")
    yield Layer(f"{theirs}.proj_out", f"{ours}/out", "conv")


def autoencoder_layers(config: VqvaeConfig) -> Iterator[Layer]:
    widths = [config.width * multiple for multiple in config.multiples]
    last = len(widths) - 1
    yield Layer("quant_conv", "to_code", "conv")
    yield Layer("post_quant_conv", "from_code", "conv")
    for part in ("encoder", "decoder"):
        yield Layer(f"{part}.conv_in", f"{part}/first", "conv")
        for number in (1, 2):
            yield from _block(f"{part}.mid.block_{number}", f"{part}/middle_{number}", False)
        yield Layer(f"{part}.mid.attn_1.norm", f"{part}/middle_attention/norm", "norm")
        for letter, name in (("q", "query"), ("k", "key"), ("v", "value"), ("proj_out", "out")):
            yield Layer(f"{part}.mid.attn_1.{letter}", f"{part}/middle_attention/{name}", "conv")
        yield Layer(f"{part}.norm_out", f"{part}/norm_last", "norm")
        yield Layer(f"{part}.conv_out", f"{part}/last", "conv")
    for level, width in enumerate(widths):
        before, above = widths[max(level - 1, 0)], widths[min(level + 1, last)]
        encoder, decoder = f"encoder/level_{level}", f"decoder/level_{level}"
        yield from _block(f"encoder.down.{level}.block.0", encoder, before != width)
        if level < last:
            yield Layer(f"encoder.down.{level}.downsample.conv", f"{encoder}_smaller", "conv")
        yield from _block(f"decoder.up.{level}.block.0", decoder, above != width)
        if level:
            yield Layer(f"decoder.up.{level}.upsample.conv", f"{decoder}_larger", "conv")


def _block(theirs: str, ours: str, shortcut: bool) -> Iterator[Layer]:
    for number in (1, 2):
        yield Layer(f"{theirs}.norm{number}", f"{ours}/norm_{number}", "norm")
        yield Layer(f"{theirs}.conv{number}", f"{ours}/conv_{number}", "conv")
    if shortcut:
        yield Layer(f"{theirs}.nin_shortcut", f"{ours}/shortcut", "conv")
