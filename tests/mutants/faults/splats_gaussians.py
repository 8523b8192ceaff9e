"""Faults in the population of Gaussians: slots, density control, sampling, exchange."""

from tests.mutants.fault import Fault

FOLDER, TESTS = "splats/gaussians", "tests/splats/gaussians"
POPULATION, DEFAULT = f"{FOLDER}/population.py", f"{FOLDER}/densify_default.py"
MCMC, REFINEMENT = f"{FOLDER}/densify_mcmc.py", f"{FOLDER}/refinement.py"
SCREEN, EXCHANGE = f"{FOLDER}/screen_gradients.py", f"{FOLDER}/exchange.py"
DEFAULT_TESTS = f"{TESTS}/densify_default_test.py"
MCMC_TESTS = f"{TESTS}/densify_mcmc_test.py"
SHARDING_TESTS = f"{TESTS}/sharding_test.py"
EXCHANGE_TESTS = f"{TESTS}/exchange_test.py"
REFINEMENT_TESTS = f"{TESTS}/refinement_test.py"

FAULTS = (
    Fault(
        "births of low gradients come first",
        POPULATION,
        "jnp.where(wanted, -priority, jnp.inf)",
        "jnp.where(wanted, priority, jnp.inf)",
        DEFAULT_TESTS,
    ),
    Fault(
        "moments of new Gaussians are those of the slot before",
        POPULATION,
        "return jnp.where(expand_like(rows, leaf), 0.0, leaf)\n\n    return replace(",
        "return leaf\n\n    return replace(",
        f"{DEFAULT_TESTS} {MCMC_TESTS}",
    ),
    Fault(
        "free slots have the quaternion zero",
        POPULATION,
        'gaussians["quats"] = gaussians["quats"].at[old:, 0].set(1.0)',
        'gaussians["quats"] = gaussians["quats"].at[old:, 0].set(0.0)',
        f"{DEFAULT_TESTS} {SHARDING_TESTS} {REFINEMENT_TESTS}",
    ),
    Fault(
        "dealt slots follow each other",
        POPULATION,
        "inverse |= ((number >> bit) & 1) << (bits - 1 - bit)",
        "inverse |= ((number >> bit) & 1) << bit",
        SHARDING_TESTS,
    ),
    Fault(
        "small Gaussians are split, large ones duplicated",
        DEFAULT,
        "small = largest <= thresholds.small_scale * scene_scale",
        "small = largest > thresholds.small_scale * scene_scale",
        DEFAULT_TESTS,
    ),
    Fault(
        "children are as large as the parent",
        DEFAULT,
        "scales=lambda scales: scales - jnp.log(SPLIT_SHRINK)",
        "scales=lambda scales: scales",
        DEFAULT_TESTS,
    ),
    Fault(
        "children are not turned with the parent",
        DEFAULT,
        '"nij,nj->ni",\n        rotation_matrices(gaussians["quats"])',
        '"nji,nj->ni",\n        rotation_matrices(gaussians["quats"])',
        DEFAULT_TESTS,
    ),
    Fault(
        "large Gaussians are pruned from the start",
        DEFAULT,
        "(largest > thresholds.prune_scale * scene_scale) & prune_large",
        "(largest > thresholds.prune_scale * scene_scale)",
        DEFAULT_TESTS,
    ),
    Fault(
        "large Gaussians are pruned before the first reset",
        REFINEMENT,
        "applied > config.reset_every, thresholds",
        "applied >= 0, thresholds",
        REFINEMENT_TESTS,
    ),
    Fault(
        "the pause after an opacity reset is ignored",
        REFINEMENT,
        "paused = applied % config.reset_every < config.pause_after_reset",
        "paused = applied < 0",
        REFINEMENT_TESTS,
    ),
    Fault(
        "statistics are kept after a refinement",
        REFINEMENT,
        "(refined, counts, screen_gradients.empty(population.capacity)),",
        "(refined, counts, statistics),",
        REFINEMENT_TESTS,
    ),
    Fault(
        "opacities are reset at every refinement",
        REFINEMENT,
        "jnp.where(due, new, old), population, reset)",
        "new, population, reset)",
        REFINEMENT_TESTS,
    ),
    Fault(
        "a reset raises low opacities",
        DEFAULT,
        "opacities=lambda logits: jnp.minimum(logits, limit)",
        "opacities=lambda logits: jnp.full_like(logits, limit)",
        DEFAULT_TESTS,
    ),
    Fault(
        "a reset keeps the moments of the opacities",
        DEFAULT,
        'return moments | {"opacities": jnp.where(rows, 0.0, leaf)}',
        'return moments | {"opacities": jnp.where(rows, leaf, leaf)}',
        DEFAULT_TESTS,
    ),
    Fault(
        "opacities are divided, not their logarithms",
        MCMC,
        "new_opacity = -jnp.expm1(jnp.log1p(-opacity) / copies)",
        "new_opacity = opacity / copies",
        MCMC_TESTS,
    ),
    Fault(
        "copies are as large as the original",
        MCMC,
        "shrink = opacity / stacked_integral(new_opacity, copies)",
        "shrink = jnp.ones_like(opacity)",
        MCMC_TESTS,
    ),
    Fault(
        "rows are drawn alike, whatever their weight",
        MCMC,
        "row_target = jax.random.uniform(row_key, (count,)) * within[block, -1]",
        "row_target = jax.random.uniform(row_key, (count,)) * 1e-30",
        MCMC_TESTS,
    ),
    Fault(
        "dead Gaussians are copied",
        MCMC,
        "sources_ok = population.alive & ~dead",
        "sources_ok = population.alive",
        MCMC_TESTS,
    ),
    Fault(
        "growth passes the cap",
        MCMC,
        "jnp.minimum(alive + extra, cap)",
        "jnp.maximum(alive + extra, 0)",
        MCMC_TESTS,
    ),
    Fault(
        "opaque Gaussians are shaken most",
        MCMC,
        "jax.nn.sigmoid(-100.0 * (opacity - minimum_opacity))",
        "jax.nn.sigmoid(100.0 * (opacity - minimum_opacity))",
        MCMC_TESTS,
    ),
    Fault(
        "screen gradients depend on the resolution",
        SCREEN,
        "half = jnp.asarray([width / 2.0, height / 2.0]) * views",
        "half = jnp.asarray([1.0, 1.0]) * views",
        f"{DEFAULT_TESTS} {REFINEMENT_TESTS} tests/splats/task_test.py",
    ),
    Fault(
        "screen gradients are averaged over views that saw nothing",
        SCREEN,
        "return self.total / jnp.maximum(self.views, 1.0)",
        "return self.total",
        REFINEMENT_TESTS,
    ),
    Fault(
        "the exchange takes any rows for visible",
        EXCHANGE,
        "visible = jnp.arange(rows)[None, None, :] < counts[:, :, None]",
        "visible = jnp.arange(rows)[None, None, :] < counts[:, :, None] + 1",
        EXCHANGE_TESTS,
    ),
    Fault(
        "an incomplete exchange goes unsaid",
        EXCHANGE,
        "jnp.any(counts > rows)",
        "jnp.any(counts > 2 * rows)",
        EXCHANGE_TESTS,
    ),
)
