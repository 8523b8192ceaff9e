"""Typed settings of V-JEPA3D. Every field has its unit and constraint beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
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
    minimum_ok_fraction: float = 0.5  # floor of ok / (ok + faults) for each named device, 0..1
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class DataConfig:
    """Where the records are and what is done to them before the model."""

    folder: str = ""  # output of `podvision prepare jepa3d`
    train_split: str = "train"
    eval_split: str = "eval"
    sigma_floor: float = 0.02  # lower bound of the z-score's divisor, on the 0..1 scale
    augment: AugmentConfig = AugmentConfig()
