"""Faults in matching, losses, denoising queries and guards of RT-DETR."""

from tests.mutants.fault import Fault

OVERLAP, COST, ASSIGNMENT, CLASSIFICATION, CRITERION = (
    f"rtdetr/losses/{name}.py"
    for name in ("overlap", "matching_cost", "assignment", "classification", "criterion")
)
DENOISING, GUARDS = "rtdetr/denoising.py", "rtdetr/guards.py"
TESTS = "tests/rtdetr/losses"

FAULTS = (
    Fault(
        "the enclosing box is the union",
        OVERLAP,
        "shared - (hull - union)",
        "shared - (hull - hull)",
        f"{TESTS}/overlap_test.py",
    ),
    Fault(
        "boxes without area divide by zero",
        OVERLAP,
        "LEAST_AREA = 1e-12",
        "LEAST_AREA = 0.0",
        f"{TESTS}/overlap_test.py",
    ),
    Fault(
        "a cost that is no number is the cheapest",
        COST,
        "jnp.minimum(cost, WORST_COST), WORST_COST)",
        "jnp.minimum(cost, WORST_COST), 0.0)",
        f"{TESTS}/matching_cost_test.py",
    ),
    Fault(
        "the focal cost forgets what a negative costs",
        COST,
        "return positive - negative",
        "return positive",
        f"{TESTS}/matching_cost_test.py",
    ),
    Fault(
        "an image without objects places a row of padding",
        ASSIGNMENT,
        "jax.lax.fori_loop(0, count, place, start)",
        "jax.lax.fori_loop(0, jnp.maximum(count, 1), place, start)",
        f"{TESTS}/assignment_test.py",
    ),
    Fault(
        "prices do not follow the paths",
        ASSIGNMENT,
        "prices = prices - jnp.where(visited, lengths[end] - lengths, 0.0)",
        "prices = prices + 0.0",
        f"{TESTS}/assignment_test.py",
    ),
    Fault(
        "devices wait for each other's images",
        ASSIGNMENT,
        "if mesh.empty or not set(DATA_AXES) <= set(mesh.axis_names):",
        "if True:",
        f"{TESTS}/assignment_test.py",
    ),
    Fault(
        "negatives weigh one quarter",
        CLASSIFICATION,
        "config.alpha * unsure",
        "(1 - config.alpha) * unsure",
        f"{TESTS}/criterion_test.py",
    ),
    Fault(
        "the classification loss trains boxes",
        CLASSIFICATION,
        "overlap = jax.lax.stop_gradient(overlap)[..., None]",
        "overlap = overlap[..., None]",
        f"{TESTS}/criterion_test.py",
    ),
    Fault(
        "unmatched queries are told the class of the first object",
        CRITERION,
        "labels = jnp.where(matched, labels, FREE)",
        "labels = jnp.where(matched, labels, labels)",
        f"{TESTS}/criterion_test.py",
    ),
    Fault(
        "a batch without objects has no loss",
        CRITERION,
        "LossTerm(weight, least_weight=1.0)",
        "LossTerm(weight)",
        f"{TESTS}/criterion_test.py",
    ),
    Fault(
        "empty denoising slots are taught",
        CRITERION,
        "classes = jnp.where(used[None], classes, 0.0)",
        "classes = jnp.where(used[None], classes, classes)",
        f"{TESTS}/criterion_test.py",
    ),
    Fault(
        "matching queries see the denoising ones",
        DENOISING,
        "jnp.pad(together, ((0, 0), (0, queries), (0, 0)))",
        "jnp.pad(together, ((0, 0), (0, queries), (0, 0)), constant_values=True)",
        "tests/rtdetr/denoising_test.py",
    ),
    Fault(
        "negatives lie as near as positives",
        DENOISING,
        "part = part + (jnp.arange(2 * slots) >= slots)[:, None]",
        "part = part + 0.0",
        "tests/rtdetr/denoising_test.py",
    ),
    Fault(
        "too many objects leave always the first ones",
        DENOISING,
        "jnp.where(count > slots, crowded, number)",
        "jnp.where(count > slots, number, number)",
        "tests/rtdetr/denoising_test.py",
    ),
    Fault(
        "a first loss that is no number passes",
        GUARDS,
        "if not value <= limit:",
        "if value > limit:",
        "tests/rtdetr/guards_test.py",
    ),
    Fault(
        "broken costs never stop a run",
        GUARDS,
        "warning=self.run < PATIENCE",
        "warning=True",
        "tests/rtdetr/guards_test.py",
    ),
    Fault(
        "a term below its least weight is divided by its own",
        "training/gradients.py",
        "task.loss_terms[name].bounded(Total(total.sum, weights[name]))",
        "Total(total.sum, weights[name])",
        "tests/training/gradients_test.py",
    ),
)
