"""All stages with one command: pictures, a prior, contact and smooth motion, each from the last.

    podvision train --config configs/hand_object/pipeline.py:SEQUENCE --workdir runs/scene
    podvision train --config configs/hand_object/pipeline.py:SEQUENCE,seed --workdir runs/scene

`arg`: SEQUENCE[,KIND]. `fast` (the default) is `fast.py`, `fast_stage2.py` and `fast_stage3.py`,
for a CPU; `smoke` the same with the tiny fields of `smoke.py`, in minutes; `seed` and `hold` are
`stage1_rgb.py`, `stage2_sds.py` and `stage3_contact_temporal.py` with the networks of that name,
for a GPU or a pod. Every stage has a folder of its own in the work folder. The same command
resumes: stages that are done are left alone. Overrides are for all stages, or for one by its name
(`--config.contact_temporal.total.updates=500`).
"""

from ml_collections import ConfigDict

from configs.hand_object import (
    fast,
    fast_stage2,
    fast_stage3,
    smoke,
    stage1_rgb,
    stage2_sds,
    stage3_contact_temporal,
)


def get_pipeline(arg: str = "") -> list[tuple[str, ConfigDict]]:
    """`arg`: folder of a sequence, and `fast`, `smoke`, `seed` or `hold` after a comma."""
    folder, _, kind = arg.partition(",")
    if kind in ("", "fast"):
        return [
            ("rgb", fast.get_config(folder)),
            ("sds", fast_stage2.get_config(folder)),
            ("contact_temporal", fast_stage3.get_config(folder)),
        ]
    if kind == "smoke":
        return [
            ("rgb", smoke.get_config(folder)),
            ("sds", fast_stage2.after(smoke.get_config(folder), updates=150)),
            ("contact_temporal", fast_stage3.after(smoke.get_config(folder), updates=200)),
        ]
    return [
        ("rgb", stage1_rgb.get_config(f"{folder},{kind}")),
        ("sds", stage2_sds.get_config(f"{folder},,{kind}")),
        ("contact_temporal", stage3_contact_temporal.get_config(f"{folder},,{kind}")),
    ]
