"""What a V-JEPA3D run checks about its data before the first update."""

from __future__ import annotations

from collections import Counter

from jepa3d.data.source import VolumeSource
from training.task import Verdict

# Sane voxel sizes in mm of a retinal scan: B-scan pitch, axial, lateral.
LIMITS_MM = ((0.001, 0.5), (0.0005, 0.02), (0.001, 0.1))


def decode_verdict(source: VolumeSource) -> Verdict:
    """Every input file has a row: kept, or skipped with a reason; none was kept undecoded."""
    kept = [row for row in source.index if row["status"] == "ok"]
    reasons = Counter(row["reason"] for row in source.index if row["status"] != "ok")
    unexplained = reasons.pop(None, 0)
    skipped = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    sentence = (
        f"{len(kept)} of {len(source.index)} input files decoded; skipped: {skipped or 'none'}"
    )
    if unexplained:
        sentence = (
            f"{unexplained} input files were skipped without a reason; prepare the data again"
        )
    return Verdict("decode", unexplained == 0, sentence)


def spacing_verdict(source: VolumeSource) -> Verdict:
    """No volume has a voxel size that no OCT device has, such as the 1 mm of a missed tag."""
    sources: Counter[str] = Counter()
    for row in source.rows:
        sizes = row["spacing_mm"]
        if not all(low <= size <= high for size, (low, high) in zip(sizes, LIMITS_MM)):
            sentence = f"{row['path']} has voxels of {sizes} mm, which no OCT device has"
            return Verdict("spacing", False, f"{sentence}; prepare the data again")
        notes = (row["notes"] or {}).get("spacing_source", {})
        sources[notes.get("in_plane", "given with the file")] += 1
    found = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sources.most_common())
    return Verdict("spacing", True, f"voxel sizes of {len(source)} volumes from: {found}")
