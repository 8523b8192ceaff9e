"""The page that goes with an exported model: what it is, for which volumes, how it is used."""

from __future__ import annotations

from collections.abc import Mapping

from jepa3d.model_folder import TrainedModel

# Of the metrics of an evaluation, those that say something about the features.
METRICS = ("skill_position", "skill_mean", "rankme", "rankme_centered", "feature_std_relative")

_USE = """```
podvision predict --model FOLDER --input SCANS --output embeddings.parquet
```

In Python, on a volume that was prepared by `preprocessing.json` (float32 [frame, row, column]):

```python
import torch
from transformers import VJEPA2Model

model = VJEPA2Model.from_pretrained("FOLDER").eval()
with torch.no_grad():
    clip = torch.from_numpy(volume)[None, :, None]  # [batch, frame, channel, row, column]
    tokens = model(clip, skip_predictor=True).last_hidden_state  # [batch, token, width]
```"""


def model_card(
    name: str, trained: TrainedModel, metrics: Mapping[str, float], scanners: Mapping[str, int]
) -> str:
    """Markdown.

    Args:
      name: of the run.
      metrics: of the evaluation at this step; empty where there was none.
      scanners: volumes that it was trained on, by scanner; empty where the data is gone.
    """
    model, preparation = trained.model, trained.preparation
    known = [f"{key} {metrics[key]:.3f}" for key in METRICS if key in metrics]
    field = "the whole field, stretched"
    if preparation.mode == "window":
        field = " x ".join(f"{size:g}" for size in preparation.window_mm) + " mm around the retina"
    trained_on = ", ".join(f"{scanner} {count}" for scanner, count in sorted(scanners.items()))
    lines = [
        "---",
        "library_name: transformers",
        "tags: [optical-coherence-tomography, self-supervised, v-jepa]",
        "---",
        f"# {name}",
        "",
        "An encoder of retinal OCT volumes, trained by predicting the features of hidden tokens "
        "(V-JEPA 2 in three dimensions) with podvision, without labels. The weights are the moving "
        f"average at step {trained.step}, with the predictor.",
        "",
        f"* Input: {_sizes(model.volume)} voxels (B-scans, depth, fast scan), {field}; a token is "
        f"{_sizes(model.patch)} voxels.",
        f"* Encoder: width {model.encoder.dim}, {model.encoder.depth} blocks, "
        f"{model.encoder.heads} heads.",
        f"* Trained on: {trained_on or 'not known here'} (volumes by scanner).",
        f"* Evaluation: {', '.join(known) or 'not known: the run was not evaluated at this step'}.",
        "",
        "Features are not a diagnosis. They carry what differs between scanners as well: evaluate "
        "on people, scanners and sites that the model has not seen, and never with volumes of one "
        "person on both sides.",
        "",
        _USE,
    ]
    return "\n".join(lines) + "\n"


def _sizes(values: tuple[int, int, int]) -> str:
    return " x ".join(map(str, values))
