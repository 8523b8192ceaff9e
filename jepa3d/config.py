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
from training.settings import setting


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Shape of a stack of pre-norm blocks."""

    dim: int = setting(least=1, most=65_536)  # width of the residual stream
    depth: int = setting(least=1, most=1000)  # number of blocks
    # Attention heads; dim / heads must be an even whole number, since RoPE encodes pairs of values.
    heads: int = setting(least=1, most=1024)
    mlp_ratio: float = setting(4.0, above=0, most=64)  # hidden width of the MLP over dim

    def __post_init__(self):
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

    # Voxels; each a multiple of patch.
    volume: tuple[int, int, int] = setting((64, 384, 384), least=1, most=8192)
    patch: tuple[int, int, int] = setting((4, 16, 16), least=1, most=1024)  # voxels of one token
    channels: int = setting(1, least=1, most=64)
    encoder: TransformerConfig = TransformerConfig(384, 12, 6)
    predictor: TransformerConfig = TransformerConfig(192, 12, 6)
    mask_tokens: int = setting(2, least=1, most=64)  # one learned token per mask set
    # "tiled": V-JEPA 2 checkpoints; "interleaved": V-JEPA 2.1, a true rotation.
    rope: str = setting("tiled", choices=("tiled", "interleaved"))
    # Tokens per side that height and width are rescaled to; 0: off.
    rope_reference_grid: int = setting(0, least=0, most=8192)
    # Encoder blocks whose outputs are predicted, rising; (): the last.
    supervise_layers: tuple[int, ...] = setting((), least=0)
    context_head: bool = False  # second output of the predictor, for the dense loss on the context
    # Of matmuls and activations; parameters, norms and softmax stay float32.
    dtype: str = setting("float32", choices=("float32", "bfloat16"))
    # What a block's backward pass computes again instead of keeping it, from nothing to everything:
    # "none"; "save_matmuls": norms, RoPE, GELU; "save_attention": the dense layers too; "block".
    remat: str = setting(
        "none", choices=("none", "save_matmuls", "save_attention", "block"), resumable=True
    )
    # Unroll the scan over blocks: slower to compile, slightly faster to run.
    unroll: bool = setting(False, resumable=True)
    # "auto": splash on TPU, cudnn on GPU in half precision, else plain or chunked by size.
    attention: str = setting(
        "auto", choices=("auto", "plain", "chunked", "splash", "cudnn"), resumable=True
    )

    def __post_init__(self):
        if any(v < p or v % p for v, p in zip(self.volume, self.patch)):
            raise ConfigError(
                f"volume {self.volume} is no multiple of patch {self.patch}; crop or pad the volume"
            )
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

    blocks: int = setting(8, least=1, most=1024)
    # Share of the height x width grid that one box covers.
    spatial_scale: float = setting(0.15, above=0, most=1)
    # Share of depth, drawn uniformly from a rising pair; 1: tubes.
    temporal_scale: tuple[float, float] = setting((1.0, 1.0), above=0, most=1)
    # Height over width of a box, drawn uniformly from a rising pair.
    aspect_ratio: tuple[float, float] = setting((0.75, 1.5), above=0, most=1000)
    # Visible and predicted tokens per volume; multiples of 128 for the TPU kernel.
    context_tokens: int = setting(2048, least=1)
    target_tokens: int = setting(2560, least=1)
    # Box centers ~ floor + 1 for retina tokens; 0: boxes anywhere.
    foreground_floor: float = setting(0.1, least=0, most=1000)
    # How much likelier a retina token inside of a box is predicted than another one.
    retina_weight: float = setting(4.0, least=1, most=1000)
    # Share of the retina tokens that stays visible at least.
    retina_context: float = setting(0.15, least=0, below=1)

    def __post_init__(self):
        for name in ("temporal_scale", "aspect_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name} must be a rising pair, got {(low, high)}; correct it")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Distance between predicted and target features."""

    # 1: L1, the reference; the loss is mean |difference|^exponent / exponent.
    exponent: float = setting(1.0, least=1, most=4)
    # Weight of the loss on context tokens; needs model.context_head.
    dense_weight: float = setting(0.0, least=0, most=1e6)
    dense_distance: bool = False  # divide each context token's loss by sqrt(distance to a target)
    # Updates between which the weight rises from 0.
    dense_warmup: tuple[int, int] = setting((0, 0), least=0)


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """How volumes become records. A folder is prepared with one of these and keeps it."""

    # "window": fixed physical box; "resize": whole field onto the grid.
    mode: str = setting("window", choices=("window", "resize"))
    # Voxels [D, H, W]; each divisible by `patch`.
    shape: tuple[int, int, int] = setting((64, 384, 384), least=1, most=8192)
    patch: tuple[int, int, int] = setting((4, 16, 16), least=1, most=1024)  # voxels of one token
    # Slow scan, depth, fast scan.
    window_mm: tuple[float, float, float] = setting((6.0, 1.92, 6.0), above=0, most=1000)
    minimum_frames: int = setting(5, least=1)  # fewer B-scans are no volume
    # Of the grid that the scan must cover.
    minimum_valid_fraction: float = setting(0.0, least=0, most=1)
    # Share of broken frames that is interpolated over.
    corrupt_fraction: float = setting(0.15, least=0, below=1)
    flip_left_eyes: bool = False  # mirror left eyes, so that temporal is on one side
    # For images and plain arrays, which do not say.
    image_spacing_mm: tuple[float, float, float] | None = setting(None, above=0, most=1000)
    participant_pattern: str = ""  # regular expression over the path; group 1 is the participant
    # Of the participants without a recommended split.
    eval_fraction: float = setting(0.1, least=0, below=1)
    split_seed: int = 0
    # Floor of ok / (ok + faults) for each named scanner.
    minimum_ok_fraction: float = setting(0.5, least=0, most=1)
    records_per_shard: int = setting(32, least=1, most=1_000_000)
    workers: int = setting(2, least=0, most=1024)  # processes; 0 converts in this process
    # A decoder that takes longer is taken for hung (workers > 0).
    seconds_per_volume: int = setting(600, least=1)

    def __post_init__(self):
        if any(part < 1 or size % part for size, part in zip(self.shape, self.patch)):
            raise ConfigError(
                f"shape {self.shape} must be three sizes divisible by the patch {self.patch}"
            )

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

    # Probabilities of mirroring the fast axis and of reversing the order of the B-scans.
    lateral_flip: float = setting(0.5, least=0, most=1)
    pitch_flip: float = setting(0.5, least=0, most=1)
    # Rising pairs: kept share of the lateral field area, and pitch over lateral share of the crop.
    crop_scale: tuple[float, float] = setting((0.8, 1.0), above=0, most=1)
    crop_aspect: tuple[float, float] = setting((0.9, 1.1), above=0, most=10)
    # Largest shift as a share of the depth; never a flip.
    axial_shift: float = setting(0.1, least=0, most=1)
    gamma: float = setting(0.2, least=0, most=2)  # log-normal width of the exponent
    contrast: float = setting(0.2, least=0, below=1)  # largest relative change of the contrast
    speckle: float = setting(0.05, least=0, most=1)  # standard deviation of multiplicative noise

    def __post_init__(self):
        for name in ("crop_scale", "crop_aspect"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name} must be a rising pair, got {(low, high)}; correct it")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the records are and what is done to them before the model."""

    # Output of `podvision prepare jepa3d`; what is in it is compared with the checkpoint's.
    folder: str = setting("", resumable=True)
    train_split: str = "train"
    eval_split: str = "eval"
    scanners: tuple[str, ...] = ()  # scanner names to use; empty takes all
    # Lower bound of the z-score's divisor, on the 0..1 scale.
    sigma_floor: float = setting(0.02, above=0, most=1)
    augment: AugmentConfig = AugmentConfig()


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """Labels of the evaluation volumes that each evaluation tries to read off the features."""

    # Table (.csv, .tsv) with a column participant, and laterality where eyes differ; "": no probe.
    labels: str = setting("", resumable=True)
    # Its columns to probe for; each gives the metric probe/COLUMN.
    columns: tuple[str, ...] = setting((), resumable=True)

    def __post_init__(self):
        if bool(self.labels) != bool(self.columns):
            raise ConfigError(
                f"config.probe needs both labels (now {self.labels!r}) and columns (now "
                f"{self.columns}); give the table and the columns to probe for, or neither"
            )


@dataclasses.dataclass(frozen=True)
class Config(TrainConfig):
    """A V-JEPA3D run."""

    model: ModelConfig = ModelConfig()
    # Scaled to the grid; used if masks is empty.
    mask_preset: str = setting("default", choices=("default", "mask06"))
    masks: tuple[MaskConfig, ...] = ()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    probe: ProbeConfig = ProbeConfig()
