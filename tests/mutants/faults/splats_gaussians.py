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
        (
            "tests/splats/gaussians/densify_default_test.py"
            "::test_too_few_slots_keep_the_births_of_highest_gradient_and_record_the_rest"
        ),
    ),
    Fault(
        "moments of new Gaussians are those of the slot before",
        POPULATION,
        "return jnp.where(expand_like(rows, leaf), 0.0, leaf)\n\n    return replace(",
        "return leaf\n\n    return replace(",
        (
            "tests/splats/gaussians/densify_default_test.py"
            "::test_refinement_equals_the_list_reference"
        ),
    ),
    Fault(
        "free slots have the quaternion zero",
        POPULATION,
        'slots["quats"] = slots["quats"].at[count:, 0].set(1.0)',
        'slots["quats"] = slots["quats"].at[count:, 0].set(0.0)',
        ("tests/splats/gaussians/refinement_test.py::test_new_slots_are_free_and_hold_rotations"),
    ),
    Fault(
        "dealt slots follow each other",
        POPULATION,
        "inverse |= ((number >> bit) & 1) << (bits - 1 - bit)",
        "inverse |= ((number >> bit) & 1) << bit",
        ("tests/splats/gaussians/sharding_test.py::test_the_order_is_that_of_the_reversed_bits"),
    ),
    Fault(
        "small Gaussians are split, large ones duplicated",
        DEFAULT,
        "small = largest <= thresholds.grow_scale3d * scene_scale",
        "small = largest > thresholds.grow_scale3d * scene_scale",
        (
            "tests/splats/gaussians/densify_default_test.py"
            "::test_refinement_equals_the_list_reference"
        ),
    ),
    Fault(
        "children are as large as the parent",
        DEFAULT,
        "scales=lambda scales: scales - jnp.log(SPLIT_SHRINK)",
        "scales=lambda scales: scales",
        (
            "tests/splats/gaussians/densify_default_test.py"
            "::test_refinement_equals_the_list_reference"
        ),
    ),
    Fault(
        "children are not turned with the parent",
        DEFAULT,
        '"nij,nj->ni",\n        rotation_matrices(gaussians["quats"])',
        '"nji,nj->ni",\n        rotation_matrices(gaussians["quats"])',
        (
            "tests/splats/gaussians/densify_default_test.py"
            "::test_refinement_equals_the_list_reference"
        ),
    ),
    Fault(
        "large Gaussians are pruned from the start",
        DEFAULT,
        "(largest > thresholds.prune_scale3d * scene_scale) & prune_large",
        "(largest > thresholds.prune_scale3d * scene_scale)",
        (
            "tests/splats/gaussians/densify_default_test.py"
            "::test_refinement_equals_the_list_reference"
        ),
    ),
    Fault(
        "large Gaussians are pruned before the first reset",
        REFINEMENT,
        "applied > config.reset_every, thresholds",
        "applied >= 0, thresholds",
        (
            "tests/splats/gaussians/refinement_test.py"
            "::test_large_gaussians_go_only_after_the_first_reset"
        ),
    ),
    Fault(
        "the pause after an opacity reset is ignored",
        REFINEMENT,
        "paused = applied % config.reset_every < config.pause_refine_after_reset",
        "paused = applied < 0",
        (
            "tests/splats/gaussians/refinement_test.py"
            "::test_pause_after_a_reset_changes_nothing_and_goes_on_counting"
        ),
    ),
    Fault(
        "statistics are kept after a refinement",
        REFINEMENT,
        "(refined, counts, screen_gradients.empty(population.capacity)),",
        "(refined, counts, statistics),",
        (
            "tests/splats/gaussians/refinement_test.py"
            "::test_statistics_begin_anew_after_a_refinement"
        ),
    ),
    Fault(
        "opacities are reset at every refinement",
        REFINEMENT,
        "jnp.where(due, new, old), population, reset)",
        "new, population, reset)",
        (
            "tests/splats/gaussians/refinement_test.py"
            "::test_opacities_are_reset_once_when_the_cadence_is_crossed"
        ),
    ),
    Fault(
        "a reset raises low opacities",
        DEFAULT,
        "opacities=lambda logits: jnp.minimum(logits, limit)",
        "opacities=lambda logits: jnp.full_like(logits, limit)",
        (
            "tests/splats/gaussians/densify_default_test.py"
            "::test_opacity_reset_clamps_down_only_and_forgets_only_opacity_moments"
        ),
    ),
    Fault(
        "a reset keeps the moments of the opacities",
        DEFAULT,
        'return moments | {"opacities": jnp.where(rows, 0.0, leaf)}',
        'return moments | {"opacities": jnp.where(rows, leaf, leaf)}',
        (
            "tests/splats/gaussians/densify_default_test.py"
            "::test_opacity_reset_clamps_down_only_and_forgets_only_opacity_moments"
        ),
    ),
    Fault(
        "opacities are divided, not their logarithms",
        MCMC,
        "new_opacity = -jnp.expm1(jnp.log1p(-opacity) / copies)",
        "new_opacity = opacity / copies",
        (
            "tests/splats/gaussians/densify_mcmc_test.py"
            "::test_division_equals_the_published_double_sum"
        ),
    ),
    Fault(
        "copies are as large as the original",
        MCMC,
        "shrink = opacity / stacked_integral(new_opacity, copies)",
        "shrink = jnp.ones_like(opacity)",
        (
            "tests/splats/gaussians/densify_mcmc_test.py"
            "::test_division_equals_the_published_double_sum"
        ),
    ),
    Fault(
        "rows are drawn alike, whatever their weight",
        MCMC,
        "row_target = jax.random.uniform(row_key, (count,)) * within[block, -1]",
        "row_target = jax.random.uniform(row_key, (count,)) * 1e-30",
        (
            "tests/splats/gaussians/densify_mcmc_test.py"
            "::test_draws_follow_the_weights_across_blocks_and_never_hit_zero_weight"
        ),
    ),
    Fault(
        "dead Gaussians are copied",
        MCMC,
        "sources_ok = population.alive & ~dead",
        "sources_ok = population.alive",
        (
            "tests/splats/gaussians/densify_mcmc_test.py"
            "::test_relocation_moves_exactly_the_dead_and_preserves_the_others"
        ),
        survives="sources are drawn by opacity, and a dead one has at most 0.005 of it",
    ),
    Fault(
        "growth passes the cap",
        MCMC,
        "jnp.minimum(alive + extra, cap)",
        "jnp.maximum(alive + extra, 0)",
        (
            "tests/splats/gaussians/densify_mcmc_test.py"
            "::test_growth_reaches_the_smaller_of_cap_and_five_percent"
        ),
    ),
    Fault(
        "opaque Gaussians are shaken most",
        MCMC,
        "jax.nn.sigmoid(-100.0 * (opacity - min_opacity))",
        "jax.nn.sigmoid(100.0 * (opacity - min_opacity))",
        (
            "tests/splats/gaussians/densify_mcmc_test.py"
            "::test_noise_is_the_covariance_times_a_gated_normal"
        ),
    ),
    Fault(
        "screen gradients depend on the resolution",
        SCREEN,
        "half = jnp.asarray([width / 2.0, height / 2.0]) * views",
        "half = jnp.asarray([1.0, 1.0]) * views",
        (
            "tests/splats/gaussians/refinement_test.py"
            "::test_statistics_depend_neither_on_the_resolution_nor_on_the_views_of_a_batch"
        ),
    ),
    Fault(
        "screen gradients are averaged over views that saw nothing",
        SCREEN,
        "return self.total / jnp.maximum(self.views, 1.0)",
        "return self.total",
        (
            "tests/splats/gaussians/refinement_test.py"
            "::test_only_rows_whose_mean_gradient_is_high_are_refined "
            "tests/splats/gaussians/densify_default_test.py"
            "::test_screen_gradient_is_the_mean_norm_in_device_units_over_seeing_views"
        ),
    ),
    Fault(
        "the exchange takes any rows for visible",
        EXCHANGE,
        "visible = jnp.arange(rows)[None, None, :] < counts[:, :, None]",
        "visible = jnp.arange(rows)[None, None, :] < counts[:, :, None] + 1",
        (
            "tests/splats/gaussians/exchange_test.py"
            "::test_sums_and_all_gradients_are_those_of_one_device"
        ),
    ),
    Fault(
        "an incomplete exchange goes unsaid",
        EXCHANGE,
        "jnp.any(counts > rows)",
        "jnp.any(counts > 2 * rows)",
        (
            "tests/splats/gaussians/exchange_test.py"
            "::test_an_incomplete_exchange_holds_the_update_back_until_there_is_room"
        ),
    ),
)
