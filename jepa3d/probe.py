"""What frozen features of whole volumes tell of labels: a ridge probe in closed form.

Volumes are split into folds by participant. In each fold a ridge regression of the standardized
features is fitted to the other folds, its strength chosen by the error of leaving one volume out
(in closed form), and scores the fold. All scores together give one number: of classes the area
under the ROC curve (the mean over classes, each against the others), of a measurement R2. Chance is
0.5 and 0; a worse R2 than that of the mean is negative.

Nothing is drawn at random: the folds are a function of labels and participants, so that numbers of
different encoders and steps compare. Legend: V volumes, D features, K outputs.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from jepa3d.labels import Labels

FOLDS = 5
# Of the mean square of a standardized feature, per volume.
STRENGTHS = np.logspace(-3, 4, 15)


def probe(features_VxD: np.ndarray, labels: Labels, folds: int = FOLDS) -> float:
    """The score of features for a label; volumes without one are left out."""
    x = np.asarray(features_VxD, np.float64)[labels.known]
    groups, values = labels.groups[labels.known], labels.values[labels.known]
    if labels.classes:
        y = np.where(values[:, None] == np.arange(len(labels.classes))[None], 1.0, -1.0)
    else:
        y = values[:, None]
    scores = np.zeros_like(y)
    fold_V = fold_of(groups, values, folds)
    for fold in range(folds):
        held, kept = fold_V == fold, fold_V != fold
        if held.any() and kept.sum() > 1:
            scores[held] = ridge(x[kept], y[kept], x[held])
    if not labels.classes:
        rest = np.sum((y - scores) ** 2)
        return float(1.0 - rest / np.sum((y - y.mean()) ** 2))
    areas = [auroc(scores[:, k], values == k) for k in range(len(labels.classes))]
    return float(np.mean(areas))


def fold_of(groups: np.ndarray, values: np.ndarray, folds: int) -> np.ndarray:
    """int [V]: the fold of each volume. Participants with like labels are dealt to all folds."""
    people = np.unique(groups)
    order = np.random.default_rng(0).permutation(len(people))
    means = np.array([values[groups == people[place]].mean() for place in order])
    dealt = order[np.argsort(means, kind="stable")]
    fold = np.empty(len(people), int)
    fold[dealt] = np.arange(len(people)) % folds
    return fold[np.searchsorted(people, groups)]


def ridge(train_VxD: np.ndarray, y_VxK: np.ndarray, asked_VxD: np.ndarray) -> np.ndarray:
    """[asked, K]: predictions for asked volumes of a ridge regression of standardized features."""
    mean, std = train_VxD.mean(axis=0), train_VxD.std(axis=0)
    # A feature that is constant here says nothing; scaled by rounding errors it would.
    scale = np.where(std > 1e-9 * (np.abs(mean) + 1e-30), 1.0 / np.maximum(std, 1e-300), 0.0)
    train, asked = (train_VxD - mean[None]) * scale[None], (asked_VxD - mean[None]) * scale[None]
    offset = y_VxK.mean(axis=0)
    left, singular, right = np.linalg.svd(train, full_matrices=False)
    projected = left.T @ (y_VxK - offset[None])
    best, chosen = np.inf, np.zeros(len(singular))
    for strength in STRENGTHS * len(train):
        shrink = singular**2 / (singular**2 + strength)
        # Of the hat matrix; the offset has 1 / V.
        hat_V = (left**2) @ shrink + 1.0 / len(train)
        rest = y_VxK - offset[None] - left @ (shrink[:, None] * projected)
        error = float(np.mean((rest / np.maximum(1.0 - hat_V, 1e-9)[:, None]) ** 2))
        if error < best:
            best, chosen = error, singular / (singular**2 + strength)
    return asked @ (right.T @ (chosen[:, None] * projected)) + offset[None]


def auroc(scores_V: np.ndarray, positive_V: np.ndarray) -> float:
    """Area under the ROC curve by ranks, ties counted half (Mann-Whitney)."""
    positives, negatives = int(positive_V.sum()), int((~positive_V).sum())
    if not positives or not negatives:
        return 0.5
    ranks = rankdata(scores_V)[positive_V].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))
