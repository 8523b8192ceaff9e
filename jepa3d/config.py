"""Typed settings of V-JEPA3D.

Sizes are (depth, height, width) of a volume: depth counts B-scans, height runs vitreous to choroid,
width along a B-scan. A *token* is one patch of the volume; token id = (d·H + h)·W + w on the token
grid.
"""

from __future__ import annotations

import dataclasses
import math

from training.config import TrainConfig
from training.errors import ConfigError

ROPE_VARIANTS = ("tiled", "interleaved")
ATTENTION_IMPLEMENTATIONS = ("auto", "plain", "chunked", "splash", "cudnn")
DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "save_matmuls", "save_attention", "block")


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Shape of a stack of pre-norm blocks."""

    dim: int  # width of the residual stream
    depth: int  # number of blocks
    heads: int  # attention heads; dim / heads must be an even whole number
    mlp_ratio: float = 4.0  # hidden width of the MLP over dim

    def __post_init__(self):
        if min(self.dim, self.depth, self.heads) < 1:
            raise ConfigError(f"dim, depth and heads must be at least 1, got {self}; raise them")
        if self.dim % (2 * self.heads):
            raise ConfigError(
                f"dim {self.dim} does not split into {self.heads} heads of even width; change heads"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def hidden(self) -> int:
        return round(self.dim * self.mlp_ratio)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Encoder, predictor and how they are computed."""

    volume: tuple[int, int, int] = (64, 384, 384)  # voxels; each a multiple of patch
    patch: tuple[int, int, int] = (4, 16, 16)  # voxels of one token
    channels: int = 1
    encoder: TransformerConfig = TransformerConfig(384, 12, 6)
    predictor: TransformerConfig = TransformerConfig(192, 12, 6)
    mask_tokens: int = 2  # one learned token per mask set
    rope: str = "tiled"  # "tiled": V-JEPA 2 checkpoints; "interleaved": V-JEPA 2.1, a true rotation
    rope_reference_grid: int = 0  # tokens per side that height and width are rescaled to; 0: off
    supervise_layers: tuple[int, ...] = ()  # encoder blocks whose outputs are predicted; (): last
    context_head: bool = False  # second output of the predictor, for the dense loss on the context
    dtype: str = "float32"  # of matmuls and activations; parameters, norms, softmax stay float32
    # What a block's backward pass computes again instead of keeping it, from nothing to everything:
    # "none"; "save_matmuls": norms, RoPE, GELU; "save_attention": the dense layers too; "block".
    remat: str = "none"
    unroll: bool = False  # unroll the scan over blocks: slower to compile, slightly faster to run
    attention: str = "auto"  # "auto" picks by backend: tpu splash, gpu cudnn, cpu chunked

    def __post_init__(self):
        if any(v < p or v % p for v, p in zip(self.volume, self.patch)):
            raise ConfigError(
                f"volume {self.volume} is no multiple of patch {self.patch}; crop or pad the volume"
            )
        _check_choice("rope", self.rope, ROPE_VARIANTS)
        _check_choice("dtype", self.dtype, DTYPES)
        _check_choice("remat", self.remat, REMAT_POLICIES)
        _check_choice("attention", self.attention, ATTENTION_IMPLEMENTATIONS)
        layers = self.supervise_layers
        if layers != tuple(sorted(set(layers))) or any(
            not 0 <= i < self.encoder.depth for i in layers
        ):
            raise ConfigError(
                f"supervise_layers {layers} must rise and lie in 0..{self.encoder.depth - 1}; "
                "correct them"
            )

    @property
    def grid(self) -> tuple[int, int, int]:
        depth, height, width = (v // p for v, p in zip(self.volume, self.patch))
        return depth, height, width

    @property
    def tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def patch_values(self) -> int:
        return math.prod(self.patch) * self.channels

    @property
    def levels(self) -> int:
        return max(1, len(self.supervise_layers))

    @property
    def feature_dim(self) -> int:
        """Width of encoder outputs and of targets: `dim`, or one `dim` per supervised layer."""
        return self.encoder.dim * self.levels


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """One mask set: union of `blocks` boxes is predicted from what lies outside."""

    blocks: int = 8
    spatial_scale: float = 0.15  # share of the height x width grid that one box covers
    temporal_scale: tuple[float, float] = (1.0, 1.0)  # share of depth, drawn uniformly; 1: tubes
    aspect_ratio: tuple[float, float] = (0.75, 1.5)  # height over width of a box, drawn uniformly
    context_tokens: int = 2048  # visible tokens per volume; multiple of 128 for the TPU kernel
    target_tokens: int = 2560  # predicted tokens per volume; multiple of 128 for the TPU kernel
    foreground_floor: float = 0.0  # 0: boxes anywhere; else centers ~ floor + foreground fraction

    def __post_init__(self):
        if self.blocks < 1 or not 0 < self.spatial_scale <= 1:
            raise ConfigError(
                f"a mask set needs blocks >= 1 and spatial_scale in (0, 1], got {self.blocks} and "
                f"{self.spatial_scale}; correct them"
            )
        for name, (low, high), top in (
            ("temporal_scale", self.temporal_scale, 1.0),
            ("aspect_ratio", self.aspect_ratio, math.inf),
        ):
            if not 0 < low <= high <= top:
                raise ConfigError(
                    f"{name} must be a rising pair in (0, {top}], got {(low, high)}; correct it"
                )
        if min(self.context_tokens, self.target_tokens) < 1:
            raise ConfigError("context_tokens and target_tokens must be at least 1; raise them")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Distance between predicted and target features."""

    exponent: float = 1.0  # 1: L1, the reference; the loss is mean |difference|^exponent / exponent
    dense_weight: float = 0.0  # weight of the loss on context tokens; needs model.context_head
    dense_distance: bool = False  # divide each context token's loss by sqrt(distance to a target)
    dense_warmup: tuple[int, int] = (0, 0)  # updates between which the weight rises from 0
    position_decay: float = 0.99  # of the running mean target per token position (skill baseline)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"model.{name} is {value!r}; choose one of {', '.join(allowed)}")


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """How volumes become records. A folder is prepared with one of these and keeps it."""

    mode: str = "window"  # "window": fixed physical box; "resize": whole field onto the grid
    shape: tuple[int, int, int] = (64, 384, 384)  # voxels [D, H, W]; each divisible by `patch`
    patch: tuple[int, int, int] = (4, 16, 16)  # voxels of one token
    window_mm: tuple[float, float, float] = (6.0, 1.92, 6.0)  # slow scan, depth, fast scan
    minimum_frames: int = 5  # fewer B-scans are no volume
    minimum_valid_fraction: float = 0.0  # of the grid that the scan must cover, 0..1
    corrupt_fraction: float = 0.15  # share of broken frames that is interpolated over, 0..1
    flip_left_eyes: bool = False  # mirror left eyes, so that temporal is on one side
    image_spacing_mm: tuple[float, float, float] | None = None  # for images and plain arrays
    participant_pattern: str = ""  # regular expression over the path; group 1 is the participant
    eval_fraction: float = 0.1  # of the participants without a recommended split, 0..1
    split_seed: int = 0
    minimum_ok_fraction: float = 0.5  # floor of ok / (ok + faults) for each named scanner, 0..1
    records_per_shard: int = 32
    workers: int = 2  # processes; 0 converts in this process
    seconds_per_volume: int = 600  # a decoder that takes longer is taken for hung (workers > 0)

    @property
    def record_fields(self) -> dict:
        """The settings that decide what a record holds, as JSON can store them."""
        return {
            "mode": self.mode,
            "shape": list(self.shape),
            "patch": list(self.patch),
            "window_mm": list(self.window_mm) if self.mode == "window" else None,
            "minimum_frames": self.minimum_frames,
            "minimum_valid_fraction": self.minimum_valid_fraction,
            "corrupt_fraction": self.corrupt_fraction,
            "flip_left_eyes": self.flip_left_eyes,
            "image_spacing_mm": list(self.image_spacing_mm) if self.image_spacing_mm else None,
        }


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Augmentation on the device; probability 0 or strength 0 switches one off."""

    lateral_flip: float = 0.5  # probability of mirroring the fast axis
    pitch_flip: float = 0.5  # probability of reversing the order of the B-scans
    crop_scale: tuple[float, float] = (0.8, 1.0)  # kept share of the lateral field area
    crop_aspect: tuple[float, float] = (0.9, 1.1)  # pitch over lateral share of the crop
    axial_shift: float = 0.1  # largest shift as a share of the depth; never a flip
    gamma: float = 0.2  # log-normal width of the exponent
    contrast: float = 0.2  # largest relative change of the contrast
    speckle: float = 0.05  # standard deviation of multiplicative noise


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the records are and what is done to them before the model."""

    folder: str = ""  # output of `podvision prepare jepa3d`
    train_split: str = "train"
    eval_split: str = "eval"
    scanners: tuple[str, ...] = ()  # scanner names to use; empty takes all
    sigma_floor: float = 0.02  # lower bound of the z-score's divisor, on the 0..1 scale
    augment: AugmentConfig = AugmentConfig()


@dataclasses.dataclass(frozen=True)
class Config(TrainConfig):
    """A V-JEPA3D run."""

    model: ModelConfig = ModelConfig()
    mask_preset: str = "default"  # default or mask06, scaled to the grid; used if masks is empty
    masks: tuple[MaskConfig, ...] = ()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
