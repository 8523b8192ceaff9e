"""Train, eval and test by participant: both eyes and all scanners of a person on the same side."""

from __future__ import annotations

import hashlib


def split_score(participant: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the participant and the seed."""
    digest = hashlib.sha256(f"{seed}:{participant}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def assign_splits(
    participants: dict[str, bool],
    recommended: dict[str, str],
    earlier: dict[str, str],
    eval_fraction: float,
    seed: int,
) -> dict[str, str]:
    """Split of each participant.

    An earlier assignment wins, so that added files never move a person; then the recommended one;
    then a seeded hash. When the hash leaves eval empty although it should not be, the participant
    with the lowest score goes there.

    Args:
      participants: name -> whether a volume is likely to come of this person's files.
      recommended: name -> split.
      earlier: name -> split of an earlier run into the same folder.
      eval_fraction: share for eval of those without recommendation, 0 switches the split off.
      seed: of the hash.

    Returns:
      name -> "train", "eval" or "test", for every participant.
    """
    splits: dict[str, str] = {}
    free = []
    for name in participants:
        settled = earlier.get(name) or recommended.get(name)
        if settled is None:
            free.append(name)
            settled = "eval" if split_score(name, seed) < eval_fraction else "train"
        splits[name] = settled
    useful = [name for name, promising in participants.items() if promising]
    movable = [name for name in free if participants[name]]
    no_eval = not any(splits[name] == "eval" for name in useful)
    if eval_fraction > 0 and no_eval and movable and len(useful) > 1:
        splits[min(movable, key=lambda name: split_score(name, seed))] = "eval"
    return splits
