"""From one stage to the next: what must be the same, and the proof that it is.

A stage takes over parameters only: strengths and counts of phases are its own, and caches are made
anew. Before any array is read, the facts of the earlier run are compared with those of this one:
the sequence by its content, and everything that gives the numbers their meaning (widths, encodings,
hands, frames, units). Afterwards the loss on fixed pixels must be what it was when it was saved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hand_object.config import FieldConfig
from hand_object.data.sequence_access import Opened
from training.errors import CheckpointError
from training.paths import named_leaves

TOLERANCE = 1e-3  # relative, of each figure of the witness
SHOWN = 5  # differences named in a sentence
# Settings that say where a field is asked or how it began, not what its numbers mean.
FREE = ("sampler.", "encoding.coarse_until", "encoding.fine_from", "sdf.radius", "compute")


def facts(opened: Opened, content: str, model: FieldConfig) -> dict[str, Any]:
    """What a checkpoint says about the run that made it."""
    sequence = opened.sequence
    spec: dict[str, Any] = {
        f"model.{key.replace('/', '.')}": value
        for key, value in named_leaves(_without_none(dataclasses.asdict(model))).items()
    }
    spec |= {f"hand.{side}": hand.name for side, hand in opened.hands.items()}
    spec |= {
        "object": "there" if sequence.object is not None else "absent",
        "frames": len(sequence),
        "scene_units_per_meter": round(float(sequence.scene_scale), 6),
        "bounding_sphere": float(sequence.sphere),
    }
    return {"sequence": {"name": sequence.name, "content": content}, "spec": spec}


def _without_none(tree: dict[str, Any]) -> dict[str, Any]:
    """A tree of settings in which None is a word: to jax it is an empty tree."""
    return {
        key: _without_none(value) if isinstance(value, dict) else "none" if value is None else value
        for key, value in tree.items()
    }


def check_facts(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raises CheckpointError where the earlier run was of another sequence or another model."""
    if "spec" not in saved:
        raise CheckpointError(
            "the run named by checkpoint.init_from does not say which model and sequence it is "
            "of; train that stage again"
        )
    theirs, ours = saved["sequence"], own["sequence"]
    if theirs["content"] != ours["content"]:
        raise CheckpointError(
            f"checkpoint.init_from was trained on another sequence ({theirs['name']}, content "
            f"{theirs['content']}) than this stage ({ours['name']}, content {ours['content']}): "
            "pictures, masks, cameras or first poses differ; give both stages one sequence and "
            "one sequence.longest"
        )
    differences = [
        f"{key} {saved['spec'].get(key, 'absent')} -> {own['spec'].get(key, 'absent')}"
        for key in sorted({*saved["spec"], *own["spec"]})
        if not key.removeprefix("model.").startswith(FREE)
        and saved["spec"].get(key) != own["spec"].get(key)
    ]
    if differences:
        more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise CheckpointError(
            f"checkpoint.init_from is of another model ({', '.join(differences[:SHOWN])}{more}; "
            "theirs -> here); give this stage the model of the one before"
        )


def check_witness(saved: Mapping[str, float] | None, found: Mapping[str, float]) -> str:
    """A sentence on the figures that were found again.

    Raises:
      CheckpointError: a figure is another one, or there are none to compare with.
    """
    if not set(saved or {}) & set(found):
        raise CheckpointError(
            "the checkpoint of checkpoint.init_from has no figures that its parameters could be "
            "recognized by; train that stage again"
        )
    assert saved is not None
    for name in sorted(set(saved) & set(found)):
        # Small figures are compared with the size of 1e-3, as sums of squares may vanish.
        scale = max(abs(saved[name]), 1e-3)
        if not abs(found[name] - saved[name]) <= TOLERANCE * scale:
            raise CheckpointError(
                f"the parameters of checkpoint.init_from do not mean here what they meant there: "
                f"{name} on fixed pixels was {saved[name]:.6g} when they were saved and is "
                f"{found[name]:.6g} now; compare the settings and the data of both stages"
            )
    shown = ", ".join(f"{name} {found[name]:.4g}" for name in sorted(found))
    return f"the fields of the earlier stage give what they gave there: {shown}"
