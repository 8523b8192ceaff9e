"""Faults in the diffusion prior of hands and objects."""

from tests.mutants.fault import Fault

GRID, SDS, SCHEDULE = (f"hand_object/prior/{name}.py" for name in ("grid", "sds", "schedule"))
GRASPS, NAMES, SOURCE = (
    f"hand_object/prior/{name}.py" for name in ("grasps", "ghop_names", "source")
)
LAYERS = "hand_object/prior/model/layers.py"
TESTS = "tests/hand_object/prior"

FAULTS = (
    Fault(
        "the grid runs along z first",
        GRID,
        'return np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1)',
        'return np.stack(np.meshgrid(line, line, line, indexing="ij")[::-1], axis=-1)',
        f"{TESTS}/grid_test.py",
    ),
    Fault(
        "a left hand is not mirrored",
        GRID,
        'y = np.cross(z, x) * (1 if model.side == "right" else -1)',
        "y = np.cross(z, x)",
        f"{TESTS}/grid_test.py",
    ),
    Fault(
        "distances are cut off hard",
        GRID,
        "return inside + LEAK * (ratio - inside)",
        "return inside",
        f"{TESTS}/grid_test.py",
    ),
    Fault(
        "the schedule is that of DDPM",
        SCHEDULE,
        "np.linspace(np.sqrt(FIRST_BETA), np.sqrt(LAST_BETA), STEPS, dtype=np.float64) ** 2",
        "np.linspace(FIRST_BETA, LAST_BETA, STEPS, dtype=np.float64)",
        f"{TESTS}/schedule_test.py",
    ),
    Fault(
        "the network is told the respaced number of a step",
        SDS,
        "prior.guesses(noisy, jnp.asarray(spaced.steps)[index])",
        "prior.guesses(noisy, index)",
        f"{TESTS}/sds_test.py",
    ),
    Fault(
        "score distillation is detached from the scene",
        SDS,
        "half = 0.5 * jnp.sum(jnp.square(latent - target))",
        "half = 0.5 * jnp.sum(jnp.square(jax.lax.stop_gradient(latent) - target))",
        f"{TESTS}/sds_test.py",
    ),
    Fault(
        "guidance goes away from the condition",
        SDS,
        "return free + guidance * (conditional - free)",
        "return conditional + guidance * (free - conditional)",
        f"{TESTS}/sds_test.py",
    ),
    Fault(
        "standardized grids come back without their mean",
        "hand_object/prior/diffusion.py",
        'return values * statistics["deviation"].reshape(*extra, 1, 1, 1, -1) + mean',
        'return values * statistics["deviation"].reshape(*extra, 1, 1, 1, -1) + 0 * mean',
        f"{TESTS}/diffusion_test.py",
    ),
    Fault(
        "a convolution is shifted by a plane",
        LAYERS,
        "flat = padded[:, plane : plane + depth].reshape(-1, height, width, channels)",
        "flat = padded[:, :depth].reshape(-1, height, width, channels)",
        f"{TESTS}/model/layers_test.py",
    ),
    Fault(
        "fingers close through the object",
        GRASPS,
        "near = gaps < FLESH",
        "near = gaps < -1.0",
        f"{TESTS}/grasps_test.py",
    ),
    Fault(
        "a grasp depends on the index of its epoch",
        SOURCE,
        "return self._drawn(position)",
        "return self._drawn(index)",
        f"{TESTS}/grasps_test.py",
    ),
    Fault(
        "kernels of the checkpoint keep their depth at the end",
        NAMES,
        "return array.transpose(2, 3, 4, 1, 0)",
        "return array.transpose(4, 3, 2, 1, 0)",
        f"{TESTS}/import_test.py",
    ),
)
