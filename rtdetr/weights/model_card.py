"""The page that goes with exported weights: what they are, for which images, how to use them."""

from __future__ import annotations

from collections.abc import Mapping

from rtdetr.config import Config
from rtdetr.data.dataset import ClassTable

METRICS = ("AP", "AP50", "AP75")


def model_card(
    config: Config, classes: ClassTable, step: int, metrics: Mapping[str, float], command: str
) -> str:
    """Markdown.

    Args:
      metrics: of the evaluation at this step; empty where it was not scored.
      command: that wrote the folder.
    """
    (height, width), decoder = config.data.size, config.model.decoder
    known = [f"{name} {metrics[name]:.3f}" for name in METRICS if name in metrics]
    scored = ", ".join(known) or "not known: the run was not evaluated at this step"
    shape = "the aspect is not kept"
    if config.data.resize == "letterbox":
        shape = "the aspect is kept, and the rest, right and bottom, is black"
    rows = [f"| {number} | {name} |" for number, name in enumerate(classes.names)]
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: object-detection",
        "---",
        f"# {config.name or 'RT-DETR'}",
        "",
        "An RT-DETR detector (Zhao et al. 2024), trained with podvision. The weights are those of "
        f"step {step}, averaged over the run where it kept an average.",
        "",
        f"* Score on `{config.data.eval_split}`: {scored}.",
        f"* Canvas: {height} x {width} px; {shape}.",
        f"* Queries: {decoder.queries}, decoder layers: {decoder.layers}.",
        f"* Written by `{command}`.",
        "",
        "```python",
        "from transformers import AutoImageProcessor, AutoModelForObjectDetection",
        "",
        'processor = AutoImageProcessor.from_pretrained("FOLDER")',
        'model = AutoModelForObjectDetection.from_pretrained("FOLDER")',
        "```",
        "",
        "| number | class |",
        "|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"
