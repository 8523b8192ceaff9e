"""Which example is at which position of the endless stream: a pure function of (seed, position).

Epoch = position // n, and every epoch has a permutation of its own. Nothing is remembered between
calls that could change an answer, so any host may ask for any position at any time.
"""

from __future__ import annotations

import numpy as np

from training.errors import ConfigError, InputError


class ExampleOrder:
    """`index(position)`: a new permutation of the examples in each epoch."""

    def __init__(self, length: int, seed: int):
        if length < 1:
            raise InputError("the training source has no examples; check the data folder and split")
        if not -(2**63) <= seed < 2**63:
            raise ConfigError(f"config.seed = {seed} does not fit 64 bits; take a smaller one")
        self.length, self.seed = length, seed
        self._epochs: dict[int, np.ndarray] = {}

    def index(self, position: int) -> int:
        """Index of the example at a position of the endless stream."""
        epoch, offset = divmod(position, self.length)
        order = self._epochs.get(epoch)
        if order is None:
            # Raw Philox output is stable across numpy versions; shuffles are not promised to be.
            raw = np.random.Philox(key=[self.seed, epoch]).random_raw(self.length)
            order = np.argsort(raw, kind="stable")
            # The epoch before is kept: what is read ahead lies on both sides of the border.
            # The dict is replaced and not changed, because reader threads look into it meanwhile.
            kept = {e: o for e, o in self._epochs.items() if e >= epoch - 1}
            self._epochs = {**kept, epoch: order}
        return int(order[offset])

    def substitute(self, position: int, attempt: int) -> int:
        """Index that stands in for an unreadable example; the same on every rerun."""
        # Another key than that of an epoch, or substitutes would follow the permutations.
        raw = np.random.Philox(key=[self.seed ^ 0x5EED, position]).random_raw(attempt)
        return int(raw[attempt - 1] % self.length)
