"""What a V-JEPA3D run checks: its data before the first update, and each evaluation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from jepa3d.data.source import VolumeSource
from training.verdict import Verdict

NAMES = (
    "decode",
    "spacing",
    "token-dependence",
    "collapse",
    "evaluation-loss",
    "best-checkpoint",
)
# Alarms of collapse: rank over what it could be, spread over size, share of dead dimensions, mean
# cosine of different volumes (0.999 was seen in collapsed models of echocardiography).
RANK, SPREAD, DEAD, ALIKE = 0.1, 0.05, 0.5, 0.999
RECENT = 1000  # updates within which a rank that halves is warned of
PATIENCE = 3  # evaluations that an alarm may stand
MEANINGS = {
    "skill_ranked": "skill_ranked, the skill inside of the scan less a penalty for a rank below "
    "a tenth of what it could be: no labels were given",
    "skill_position": "skill_position, which a collapsed model can win; skill_ranked cannot be",
}
# Sane voxel sizes in mm of a retinal scan: B-scan pitch, axial, lateral. Wider than the gates that
# preparation applies to each file (`SPACING_GATES_MM`).
LIMITS_MM = ((0.001, 0.5), (0.0005, 0.02), (0.001, 0.1))


def decode_verdict(source: VolumeSource) -> Verdict:
    """Every input file that gave no volume has a reason in its row."""
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
    """No volume has a voxel size that no OCT scanner has, such as the 1 mm of a missed tag."""
    sources: Counter[str] = Counter()
    for row in source.rows:
        sizes = row["spacing_mm"]
        if not all(low <= size <= high for size, (low, high) in zip(sizes, LIMITS_MM)):
            sentence = f"{row['path']} has voxels of {sizes} mm, which no OCT scanner has"
            return Verdict("spacing", False, f"{sentence}; prepare the data again")
        notes = (row["notes"] or {}).get("spacing_source", {})
        sources[notes.get("in_plane", "given with the file")] += 1
    found = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sources.most_common())
    return Verdict("spacing", True, f"voxel sizes of {len(source)} volumes from: {found}")


def collapse_verdict(history: Sequence[Mapping[str, float]]) -> Verdict:
    """Collapse by the panel, on foreground features: a warning at first, then the end of the run.

    Features that are one constant vector stop the run at once. Any other alarm is a warning until
    it has stood for `PATIENCE` evaluations; a rank that is low but has risen since then, as at the
    start of a healthy run, is never more than a warning. Nor is a rank that has halved but is not
    low: the features of a random encoder have a high one, which it is right to lose.
    """
    now = history[-1]
    rank, ratio = now["rankme"], now["feature_std_relative"]
    best = max(row["rankme"] for row in history)
    state = (
        f"RankMe of the foreground features is {rank:.1f} (best so far {best:.1f}), their spread "
        f"over their norm {ratio:.3f}"
    )
    remedy = "lower the learning rate, raise ema"
    if rank < 1.5 and ratio < SPREAD:
        sentence = f"the features have collapsed: {state}; {remedy}"
        return Verdict("collapse", False, sentence)
    alarms = collapse_alarms(now)
    recent = [r["rankme"] for r in history if r.get("step", 0) >= now.get("step", 0) - RECENT]
    halved = f"the rank has halved within {RECENT:,} updates, from {max(recent):.1f}"
    said = [*alarms, halved] if rank < 0.5 * max(recent) else alarms
    if not said:
        return Verdict("collapse", True, state)
    standing = 0
    while standing < len(history) and collapse_alarms(history[-1 - standing]):
        standing += 1
    recovering = rank > history[-min(PATIENCE, len(history))]["rankme"]
    fatal = standing >= PATIENCE and not recovering
    sentence = f"the features are collapsing: {'; '.join(said)}; {state}; {remedy}"
    if fatal:
        sentence = f"{sentence} (at {standing} evaluations in a row)"
    return Verdict("collapse", False, sentence, warning=not fatal)


def collapse_alarms(now: Mapping[str, float]) -> list[str]:
    """What is wrong with the features of an evaluation, in a few words each."""
    alarms = []
    if now["rankme_relative"] < RANK:
        alarms.append(f"only {now['rankme_relative']:.0%} of the possible directions are in use")
    if now["feature_std_relative"] < SPREAD:
        alarms.append("the features hardly differ from their mean")
    if now["feature_dead_fraction"] > DEAD:
        alarms.append(f"{now['feature_dead_fraction']:.0%} of the dimensions do not vary")
    if now.get("rankme_volumes", 2.0) < 1.5 and now.get("cosine_between_volumes", 0.0) > ALIKE:
        alarms.append("all volumes look alike")
    return alarms


def best_verdict(metric: str | None, now: Mapping[str, float]) -> Verdict:
    """Says by what the best checkpoint is chosen; warns where labels are there and not used."""
    probes = [name for name in now if name.startswith("probe/")]
    by = MEANINGS.get(metric or "", f"eval/{metric}")
    if metric in probes:
        by = f"{metric}, what a ridge probe of the pooled features tells of these labels"
    sentence = (
        f"the best checkpoint is chosen by {by}" if metric else "no checkpoint is called best"
    )
    if probes and metric not in probes:
        sentence = (
            f"labels were given, but the best checkpoint is not chosen by them; set "
            f"checkpoint.best_metric={probes[0]}"
        )
        return Verdict("best-checkpoint", False, sentence, warning=True)
    return Verdict("best-checkpoint", True, sentence)


def loss_verdict(history: Sequence[Mapping[str, float]]) -> Verdict:
    """The evaluation loss is a positive number and differs from that of the step before."""
    now = history[-1]
    loss, step = now["loss"], now.get("step", 0)
    # A step that was evaluated twice rightly gives the same loss: only earlier steps count.
    before = [row for row in history[:-1] if row.get("step", 0) < step]
    problem = ""
    if loss == 0.0:
        problem = "is exactly 0: no token is hidden, or the target is compared with itself"
    elif not math.isfinite(loss):
        problem = f"is {loss}: look at the volumes of the evaluation split"
    elif before and loss == before[-1]["loss"]:
        problem = f"is {loss:g}, to the last bit that of step {before[-1]['step']:.0f}"
        problem = f"{problem}: nothing that it depends on has changed"
    if problem:
        return Verdict(
            "evaluation-loss", False, f"the evaluation loss at step {step:.0f} {problem}"
        )
    sentence = f"the evaluation loss of {len(history)} evaluations is positive and changes"
    return Verdict("evaluation-loss", True, sentence)


def of_data(source: VolumeSource) -> list[Verdict]:
    """Before the first update."""
    return [decode_verdict(source), spacing_verdict(source)]


def of_evaluations(
    history: Sequence[Mapping[str, float]], best_metric: str | None
) -> list[Verdict]:
    """After each evaluation; oldest first."""
    return [
        loss_verdict(history),
        collapse_verdict(history),
        best_verdict(best_metric, history[-1]),
    ]
