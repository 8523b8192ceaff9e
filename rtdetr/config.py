"""Typed settings of RT-DETR.

Sizes are (height, width) in px. A *canvas* is the image that the network sees: the photograph,
resized, and padded where its shape is another one. A *token* is a cell of one of the three feature
maps (stride 8, 16, 32); a *query* becomes one detection. Lengths of phases are fractions of the
run, so that a recipe made for a large data set cannot spend a small one on its warm-up.
"""

from __future__ import annotations

import dataclasses

from training.config import TrainConfig
from training.errors import ConfigError
from training.settings import setting

STRIDES = (8, 16, 32)


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """ResNet-vd (He et al. 2019, "Bag of Tricks", variant D)."""

    block: str = setting("bottleneck", choices=("basic", "bottleneck"))
    depths: tuple[int, int, int, int] = setting((3, 4, 6, 3), least=1, most=100)  # blocks a stage
    stem: tuple[int, int, int] = setting((32, 32, 64), least=1, most=4096)  # channels
    widths: tuple[int, int, int, int] = setting((64, 128, 256, 512), least=1, most=4096)
    # The stem is not trained; norms are fixed affine maps. Both suit pretrained weights only.
    freeze_stem: bool = True
    freeze_norm: bool = True

    @property
    def expansion(self) -> int:
        return 4 if self.block == "bottleneck" else 1

    @property
    def channels(self) -> tuple[int, int, int]:
        """Of the three maps that leave the backbone."""
        a, b, c = (width * self.expansion for width in self.widths[1:])
        return a, b, c


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Hybrid encoder: attention on the coarsest map, then convolutions across the maps."""

    width: int = setting(256, least=4, most=4096)  # channels of every map
    heads: int = setting(8, least=1, most=64)
    feed_forward: int = setting(1024, least=1, most=65_536)  # hidden width
    layers: int = setting(1, least=0, most=12)  # of attention
    blocks: int = setting(3, least=1, most=12)  # RepVGG blocks of each fusion
    expansion: float = setting(1.0, above=0, most=4)  # width inside of a fusion over `width`
    # Order of the position embedding over a rectangle. "x_major" is that of the authors' code,
    # wrong where height and width differ; only for weights that were trained with it.
    positions: str = setting("y_major", choices=("y_major", "x_major"))

    def __post_init__(self):
        if self.width % 4 or self.width % self.heads:
            raise ConfigError(
                f"encoder.width {self.width} must be divisible by 4 and by its {self.heads} heads"
            )


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Query selection and the deformable decoder."""

    width: int = setting(256, least=4, most=4096)
    heads: int = setting(8, least=1, most=64)
    feed_forward: int = setting(1024, least=1, most=65_536)
    layers: int = setting(6, least=1, most=24)
    queries: int = setting(300, least=1, most=10_000)
    points: tuple[int, int, int] = setting((4, 4, 4), least=1, most=16)  # sampled on each map
    offset_scale: float = setting(0.5, above=0, most=4)  # of a sampling offset, in box sizes
    activation: str = setting("relu", choices=("relu", "silu"))
    # Hidden layers of the MLP that embeds a query's box: (2 * width,) in v1 and v2.
    position_hidden: tuple[int, ...] = setting((512,), least=1, most=65_536)
    # A layer's box also trains the layer before (Zhang et al. 2023, DINO, section 3.5).
    look_forward_twice: bool = True
    anchor_size: float = setting(0.05, above=0, below=1)  # of the finest map, over the canvas
    # "square_pixels": anchors are as wide as high in px; "relative": in fractions of the canvas.
    anchors: str = setting("relative", choices=("relative", "square_pixels"))
    anchor_margin: float = setting(0.01, above=0, below=0.5)  # cells nearer to the border have none
    # Cells without an anchor may be selected, as in the authors' code; all their scores are equal.
    select_invalid: bool = False
    prior: float = setting(0.01, above=0, below=1)  # probability of each class at the start
    # How maps are sampled: see rtdetr/model/deformable_attention.py. "auto" asks the platform.
    sampling: str = setting("auto", choices=("auto", "gather", "packed", "onehot"), resumable=True)

    def __post_init__(self):
        if self.width % self.heads:
            raise ConfigError(
                f"decoder.width {self.width} is not divisible by its {self.heads} heads"
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network; the defaults are RT-DETR R50."""

    # 0: as many as the class table of the data, or of the weights.
    classes: int = setting(0, least=0, most=100_000)
    backbone: BackboneConfig = BackboneConfig()
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    # What the network gets: "unit": value / 255; "imagenet": that, standardized by channel.
    input_norm: str = setting("unit", choices=("unit", "imagenet"))
    # Of convolutions and matmuls; boxes, norms, softmax and everything after the heads: float32.
    dtype: str = setting("float32", choices=("float32", "bfloat16"))
    remat: bool = setting(False, resumable=True)  # backbone stages are computed again backward


@dataclasses.dataclass(frozen=True)
class DenoisingConfig:
    """Contrastive denoising queries (Zhang et al. 2023, DINO), packed to a constant number."""

    slots: int = setting(100, least=0, most=2000)  # positive queries, and as many negative; 0: off
    label_noise: float = setting(0.5, least=0, most=1)  # half of it is the share of changed classes
    box_noise: float = setting(1.0, least=0, most=10)  # of half a box side


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Classification loss, weights of the terms and of the matching cost."""

    # "vfl": varifocal (Zhang et al. 2021); "mal": matchability-aware (DEIM, Huang et al. 2025).
    classification: str = setting("vfl", choices=("vfl", "mal"))
    alpha: float = setting(0.75, above=0, most=1)  # weight of negatives; vfl only
    gamma: float = setting(2.0, least=0, most=10)  # focusing exponent: 2 for vfl, 1.5 for mal
    class_weight: float = setting(1.0, least=0, most=1e4)
    l1_weight: float = setting(5.0, least=0, most=1e4)
    giou_weight: float = setting(2.0, least=0, most=1e4)
    # Of the matching cost (focal with its own alpha 0.25 and gamma 2).
    match_class: float = setting(2.0, least=0, most=1e4)
    match_l1: float = setting(5.0, least=0, most=1e4)
    match_giou: float = setting(2.0, least=0, most=1e4)
    denoising: DenoisingConfig = DenoisingConfig()


@dataclasses.dataclass(frozen=True)
class PhaseConfig:
    """A part of the run, [start, stop) as fractions of its updates; stop = start: never."""

    start: float = setting(0.0, least=0, most=1)
    stop: float = setting(1.0, least=0, most=1)

    def __post_init__(self):
        if self.stop < self.start:
            raise ConfigError(f"a phase from {self.start} to {self.stop} ends before it starts")


NEVER = PhaseConfig(0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training images, in this order; probability 0 switches one off."""

    # `color` to `crop` only inside this phase; flips and resizes in the whole run.
    strong: PhaseConfig = PhaseConfig(0.0, 0.986)
    color: float = setting(0.5, least=0, most=1)  # brightness, contrast, saturation, hue, order
    zoom_out: float = setting(0.5, least=0, most=1)
    zoom_largest: float = setting(4.0, least=1, most=16)  # factor of the largest zoom-out
    crop: float = setting(0.8, least=0, most=1)  # crop that keeps a least IoU with some object
    flip: float = setting(0.5, least=0, most=1)  # left to right
    vertical_flip: float = setting(0.0, least=0, most=1)  # only where up and down mean nothing
    # Four images in one (excludes zoom-out and crop), and two images blended over each other.
    mosaic: float = setting(0.0, least=0, most=1)
    mixup: float = setting(0.0, least=0, most=1)
    mixed: PhaseConfig = NEVER  # of mosaic and mixup
    fill: int = setting(0, least=0, most=255)  # value of pixels outside of an image


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they become a canvas."""

    # Output of `podvision prepare rtdetr`; its content is compared with the checkpoint's.
    folder: str = setting("", resumable=True)
    train_split: str = "train"
    eval_split: str = "val"
    # Canvas; each a multiple of 32.
    size: tuple[int, int] = setting((640, 640), least=32, most=8192)
    # "squash": each axis by itself, as published; "letterbox": aspect kept, rest padded and masked.
    resize: str = setting("squash", choices=("squash", "letterbox"))
    # Further canvases of training, drawn for each update; empty: `size` only.
    scales: tuple[tuple[int, int], ...] = setting((), least=32, most=8192)
    scale_phase: PhaseConfig = PhaseConfig(0.0, 0.986)
    max_objects: int = setting(100, least=1, most=2000)  # kept of an image; the largest ones
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self):
        for size in (self.size, *self.scales):
            if any(side % 32 for side in size):
                raise ConfigError(
                    f"data.size and data.scales must be multiples of 32, and {size} is not; use "
                    f"{tuple(-(-side // 32) * 32 for side in size)}"
                )


@dataclasses.dataclass(frozen=True)
class ScoringConfig:
    """How detections are counted at evaluation."""

    queries: int = setting(0, least=0, most=10_000, resumable=True)  # 0: as in training
    layers: int = setting(0, least=0, most=24, resumable=True)  # decoder layers used; 0: all
    detections: int = setting(300, least=1, most=10_000, resumable=True)  # kept for each image
    max_detections: int = setting(100, least=1, most=10_000, resumable=True)  # COCO's maxDets
    bootstrap: int = setting(200, least=0, most=100_000, resumable=True)  # resamples; 0: none
    pictures: int = setting(6, least=0, most=100, resumable=True)  # worst images that are drawn
    raw: bool = setting(True, resumable=True)  # also scores the weights without their average


@dataclasses.dataclass(frozen=True)
class Config(TrainConfig):
    """An RT-DETR run."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    scoring: ScoringConfig = ScoringConfig()
