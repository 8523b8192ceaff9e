"""Faults in the order of examples, their reading, and the sweep of an evaluation."""

from tests.mutants.fault import Fault

ORDER, STREAM, SWEEP = "training/order.py", "training/stream.py", "training/over_batches.py"
STREAM_TESTS, SWEEP_TESTS = "tests/training/stream_test.py", "tests/training/over_batches_test.py"
READING_TESTS = "tests/training/reading_test.py"

FAULTS = (
    Fault(
        "padding rows of the last evaluation batch count",
        SWEEP,
        '"weight": (wanted <= last).astype(np.float32),',
        '"weight": np.ones(len(wanted), np.float32),',
        SWEEP_TESTS,
    ),
    Fault(
        "rows that fill up a batch are gathered",
        SWEEP,
        "_host(x)[: len(indices)]",
        "_host(x)",
        SWEEP_TESTS,
    ),
    Fault(
        "sums are those of the last batch",
        SWEEP,
        "sums = added if sums is None else jax.tree.map(np.add, sums, added)",
        "sums = added",
        SWEEP_TESTS,
    ),
    Fault(
        "the last batch is left out",
        SWEEP,
        "        if pending is not None:\n            collect(*pending)\n    joined",
        "    joined",
        SWEEP_TESTS,
    ),
    Fault(
        "every host examines every replica",
        SWEEP,
        "if shard.replica_id == 0:",
        "if shard.replica_id >= 0:",
        SWEEP_TESTS,
    ),
    Fault(
        "every epoch has the same order",
        ORDER,
        "np.random.Philox(key=[self.seed, epoch]).random_raw(self.length)",
        "np.random.Philox(key=[self.seed, 0]).random_raw(self.length)",
        f"{STREAM_TESTS}::test_epochs_and_seeds_have_orders_of_their_own",
    ),
    Fault(
        "examples are drawn with repetition",
        ORDER,
        'order = np.argsort(raw, kind="stable")',
        "order = (raw % np.uint64(self.length)).astype(np.int64)",
        f"{STREAM_TESTS}::test_each_epoch_is_a_permutation",
    ),
    Fault(
        "the substitute of an example is always the same",
        ORDER,
        "np.random.Philox(key=[self.seed ^ 0x5EED, position]).random_raw(attempt)",
        "np.random.Philox(key=[self.seed ^ 0x5EED, 0]).random_raw(attempt)",
        STREAM_TESTS,
    ),
    Fault(
        "every process reads the first rows",
        STREAM,
        "return step * self.batch_size + self.rows",
        "return step * self.batch_size + np.arange(len(self.rows))",
        f"{STREAM_TESTS}::test_the_rows_of_all_processes_are_the_batch_of_one_process",
    ),
    Fault(
        "an example that stands in is loaded with its own position",
        STREAM,
        "self._readers.load(index, position)",
        "self._readers.load(index, index)",
        READING_TESTS,
    ),
    Fault(
        "replaced examples are not counted",
        STREAM,
        "self.replaced += len(errors)",
        "self.replaced += 0",
        STREAM_TESTS,
    ),
    Fault(
        "any share of examples may be replaced",
        STREAM,
        "self.replaced > allowed * self.read:",
        "self.replaced > self.read:",
        STREAM_TESTS,
    ),
)
