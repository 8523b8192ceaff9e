"""The networks of G-HOP in PyTorch, as the specification describes them; parameters have its names.

Grids are [B, C, D, H, W]. Written for the comparison in `hand_object_prior_test`, from the layout
of OpenAI's U-Net and of the autoencoder of latent diffusion.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, side: int = 3, stride: int = 1, pad: int | None = None):
    return nn.Conv3d(inputs, outputs, side, stride, (side - 1) // 2 if pad is None else pad)


class Residual(nn.Module):
    def __init__(self, inputs, outputs, time, groups):
        super().__init__()
        norm = nn.GroupNorm(groups, inputs)
        self.in_layers = nn.Sequential(norm, nn.SiLU(), conv(inputs, outputs))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * outputs))
        last = nn.GroupNorm(groups, outputs)
        self.out_layers = nn.Sequential(last, nn.SiLU(), nn.Dropout(0.0), conv(outputs, outputs))
        same = inputs == outputs
        self.skip_connection = nn.Identity() if same else conv(inputs, outputs, 1)

    def forward(self, x, time, context):
        h = self.in_layers(x)
        scale, shift = self.emb_layers(time)[:, :, None, None, None].chunk(2, dim=1)
        h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        return self.skip_connection(x) + h


class Attention(nn.Module):
    def __init__(self, width, context, head):
        super().__init__()
        self.head = head
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(self, x, context):
        def heads(values):
            return values.unflatten(-1, (-1, self.head)).transpose(1, 2)

        q, k, v = heads(self.to_q(x)), heads(self.to_k(context)), heads(self.to_v(context))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(mixed.transpose(1, 2).flatten(-2))


class GatedUnit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.proj = nn.Linear(width, 8 * width)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(GatedUnit(width), nn.Dropout(0.0), nn.Linear(4 * width, width))

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, width, context, head):
        super().__init__()
        self.attn1, self.attn2 = (Attention(width, c, head) for c in (width, context))
        self.ff = FeedForward(width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x, context):
        own = self.norm1(x)
        x = x + self.attn1(own, own)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, width, context, head, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in, self.proj_out = conv(width, width, 1), conv(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, context, head)])

    def forward(self, x, time, context):
        h = self.proj_in(self.norm(x))
        tokens = self.transformer_blocks[0](h.flatten(2).transpose(1, 2), context)
        return x + self.proj_out(tokens.transpose(1, 2).reshape(h.shape))


class Down(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.op = conv(width, width, 3, 2, 1)

    def forward(self, x, time, context):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = conv(width, width)

    def forward(self, x, time, context):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class First(nn.Conv3d):
    def forward(self, x, time, context):
        return super().forward(x)


class Unet(nn.Module):
    def __init__(self, config, channels=23):
        super().__init__()
        width, time, groups = config.width, 4 * config.width, config.groups
        self.width = width
        self.time_embed = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))

        def attention(inside):
            return SpatialTransformer(inside, config.condition, config.head, groups)

        self.input_blocks = nn.ModuleList([nn.ModuleList([First(channels, width, 3, padding=1)])])
        kept, now = [width], width
        for level, multiple in enumerate(config.multiples):
            for _ in range(config.blocks):
                layers = [Residual(now, multiple * width, time, groups)]
                now = multiple * width
                layers += [attention(now)] if level in config.attended else []
                self.input_blocks.append(nn.ModuleList(layers))
                kept.append(now)
            if level < len(config.multiples) - 1:
                self.input_blocks.append(nn.ModuleList([Down(now)]))
                kept.append(now)
        self.middle_block = nn.ModuleList(
            [Residual(now, now, time, groups), attention(now), Residual(now, now, time, groups)]
        )
        self.output_blocks = nn.ModuleList()
        for level, multiple in reversed(list(enumerate(config.multiples))):
            for block in range(config.blocks + 1):
                layers = [Residual(now + kept.pop(), multiple * width, time, groups)]
                now = multiple * width
                layers += [attention(now)] if level in config.attended else []
                layers += [Up(now)] if level and block == config.blocks else []
                self.output_blocks.append(nn.ModuleList(layers))
        self.out = nn.Sequential(nn.GroupNorm(groups, now), nn.SiLU(), conv(now, channels))

    def forward(self, x, steps, condition):
        half = self.width // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half) / half)
        angles = steps[:, None].float() * rates[None]
        time = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=-1))
        context, kept = condition[:, None], []
        for block in self.input_blocks:
            for layer in block:
                x = layer(x, time, context)
            kept.append(x)
        for layer in self.middle_block:
            x = layer(x, time, context)
        for block in self.output_blocks:
            x = torch.cat([x, kept.pop()], dim=1)
            for layer in block:
                x = layer(x, time, context)
        return self.out(x)


class Block(nn.Module):
    def __init__(self, inputs, outputs, groups):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, inputs, eps=1e-6), conv(inputs, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(groups, outputs, eps=1e-6), conv(outputs, outputs)
        if inputs != outputs:
            self.nin_shortcut = conv(inputs, outputs, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class VoxelAttention(nn.Module):
    def __init__(self, width, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (conv(width, width, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.q, self.k, self.v))
        scores = torch.softmax(q.transpose(1, 2) @ k * x.shape[1] ** -0.5, dim=-1)
        return x + self.proj_out((v @ scores.transpose(1, 2)).reshape(x.shape))


def middle(width, groups):
    parts = nn.Module()
    parts.block_1, parts.block_2 = Block(width, width, groups), Block(width, width, groups)
    parts.attn_1 = VoxelAttention(width, groups)
    return parts


def through(parts, x):
    return parts.block_2(parts.attn_1(parts.block_1(x)))


def level(block, name=None, layer=None):
    parts = nn.Module()
    parts.block = nn.ModuleList([block])
    if name is not None:
        holder = nn.Module()
        holder.conv = layer
        setattr(parts, name, holder)
    return parts


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths = [config.width * m for m in config.multiples]
        self.conv_in, self.down = conv(1, config.width), nn.ModuleList()
        now = config.width
        for number, width in enumerate(widths):
            last = number == len(widths) - 1
            smaller = (None, None) if last else ("downsample", conv(width, width, 3, 2, 0))
            self.down.append(level(Block(now, width, config.groups), *smaller))
            now = width
        self.mid = middle(now, config.groups)
        self.norm_out = nn.GroupNorm(config.groups, now, eps=1e-6)
        self.conv_out = conv(now, config.channels)

    def forward(self, x):
        h = self.conv_in(x)
        for parts in self.down:
            h = parts.block[0](h)
            if hasattr(parts, "downsample"):
                h = parts.downsample.conv(F.pad(h, (0, 1, 0, 1, 0, 1)))
        return self.conv_out(F.gelu(self.norm_out(through(self.mid, h))))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        widths = [config.width * m for m in config.multiples]
        now = widths[-1]
        self.conv_in, self.mid = conv(config.channels, now), middle(now, config.groups)
        levels = []
        for number, width in reversed(list(enumerate(widths))):
            larger = ("upsample", conv(width, width)) if number else (None, None)
            levels.insert(0, level(Block(now, width, config.groups), *larger))
            now = width
        self.up = nn.ModuleList(levels)
        self.norm_out = nn.GroupNorm(config.groups, now, eps=1e-6)
        self.conv_out = conv(now, 1)

    def forward(self, z):
        h = through(self.mid, self.conv_in(z))
        for parts in reversed(self.up):
            h = parts.block[0](h)
            if hasattr(parts, "upsample"):
                h = parts.upsample.conv(F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.conv_out(F.gelu(self.norm_out(h)))


class Vqvae(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = conv(config.channels, config.channels, 1)
        self.post_quant_conv = conv(config.channels, config.channels, 1)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(config.codes, config.channels)

    def encode(self, x):
        return self.quant_conv(self.encoder(x))

    def decode(self, z):
        codes = self.quantize.embedding.weight
        flat = z.movedim(1, -1).reshape(-1, z.shape[1])
        nearest = torch.cdist(flat, codes).argmin(dim=-1)
        quantized = codes[nearest].reshape(z.movedim(1, -1).shape).movedim(-1, 1)
        return self.decoder(self.post_quant_conv(quantized))
