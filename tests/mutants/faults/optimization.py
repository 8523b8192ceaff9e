"""Faults in schedules, optimizer, mesh and step."""

from tests.mutants.fault import Fault

SCHEDULES, OPTIMIZER = "training/schedules.py", "training/optimizer.py"
MESH, STEP = "training/mesh.py", "training/step.py"
SCHEDULE_TESTS = "tests/training/schedules_test.py"
OPTIMIZER_TESTS = "tests/training/optimizer_test.py"
MESH_TESTS = "tests/training/mesh_test.py"
STEP_TESTS = "tests/training/step_test.py"

FAULTS = (
    Fault(
        "the cosine begins again after the horizon",
        SCHEDULES,
        "t = xp.minimum(t, total_updates - 1)",
        "t = xp.minimum(t, 10 * total_updates)",
        f"{SCHEDULE_TESTS}::test_no_learning_rate_rises_after_its_warm_up_over_three_horizons",
    ),
    Fault(
        "the first update has a learning rate of zero",
        SCHEDULES,
        "(t if first else t + 1)",
        "t",
        (
            "tests/training/schedules_test.py"
            "::test_warmup_cosine_is_that_of_optax_shifted_to_start_above_zero"
        ),
    ),
    Fault(
        "a warm-up of a fraction is rounded down",
        SCHEDULES,
        "math.ceil(config.warmup_fraction * total_updates)",
        "math.floor(config.warmup_fraction * total_updates)",
        ("tests/training/schedules_test.py::test_warmup_stable_decay_follows_a_hand_table"),
    ),
    Fault(
        "the floor of the cosine is forgotten",
        SCHEDULES,
        "return final + (1 - final) * 0.5 * (1 + xp.cos(math.pi * progress))",
        "return 0.5 * (1 + xp.cos(math.pi * progress))",
        (
            "tests/training/schedules_test.py"
            "::test_warmup_cosine_is_that_of_optax_shifted_to_start_above_zero"
        ),
    ),
    Fault(
        "a rise is looked for between neighbors only",
        SCHEDULES,
        "risen = values[after] - np.minimum.accumulate(values[after]) > 1e-6 * values.max()",
        "risen = np.diff(values[after], prepend=values[after][:1]) > 1e-6 * values.max()",
        (
            "tests/training/schedules_test.py"
            "::test_a_rise_too_slow_to_see_between_neighbors_is_still_a_rise"
        ),
    ),
    Fault(
        "the EMA decay falls instead of rising",
        SCHEDULES,
        "return config.start + (config.end - config.start) * progress",
        "return config.end + (config.start - config.end) * progress",
        ("tests/training/schedules_test.py::test_ema_decays_follow_their_formulas"),
    ),
    Fault(
        "a group's weight decay of zero is ignored",
        OPTIMIZER,
        "return common if own is None else own",
        "return own or common",
        ("tests/training/optimizer_test.py::test_decay_of_zero_is_a_setting_of_a_group"),
    ),
    Fault(
        "a group's learning rate is ignored",
        OPTIMIZER,
        "base = _either(groups[name].learning_rate, config.learning_rate)",
        "base = config.learning_rate",
        ("tests/training/optimizer_test.py::test_each_group_has_its_own_rate_and_decay"),
    ),
    Fault(
        "biases and norms are decayed too",
        OPTIMIZER,
        "if decayed and self.weight_decay[label]:",
        "if self.weight_decay[label]:",
        (
            "tests/training/optimizer_test.py"
            "::test_decay_goes_by_name_also_where_stacked_layers_have_another_rank "
            "tests/training/optimizer_test.py"
            "::test_updates_over_several_steps_are_those_of_optax_adamw"
        ),
    ),
    Fault(
        "weight decay goes uphill",
        OPTIMIZER,
        "direction = direction + self.weight_decay[label] * parameter",
        "direction = direction - self.weight_decay[label] * parameter",
        (
            "tests/training/optimizer_test.py"
            "::test_each_group_has_its_own_rate_and_decay "
            "tests/training/optimizer_test.py"
            "::test_updates_over_several_steps_are_those_of_optax_adamw"
        ),
    ),
    Fault(
        "the last rule wins instead of the first",
        OPTIMIZER,
        "for pattern, value in rules:\n        if compile_pattern",
        "for pattern, value in reversed(rules):\n        if compile_pattern",
        ("tests/training/optimizer_test.py::test_the_first_matching_rule_counts"),
    ),
    Fault(
        "plain moments forget the square",
        OPTIMIZER,
        "b2 * v + (1 - b2) * g * g",
        "b2 * v + (1 - b2) * jnp.abs(g)",
        (
            "tests/training/optimizer_test.py"
            "::test_without_bias_correction_the_first_steps_are_those_of_the_plain_moments"
        ),
    ),
    Fault(
        "gradients above the clip norm are not clipped",
        OPTIMIZER,
        "return jnp.minimum(1.0, clip_norm / (norm + 1e-6))",
        "return jnp.maximum(1.0, clip_norm / (norm + 1e-6))",
        ("tests/training/optimizer_test.py::test_clipping_only_shortens"),
    ),
    Fault(
        "the norm of a group is that of its last leaf",
        OPTIMIZER,
        "groups.setdefault(label, []).append(leaf)",
        "groups[label] = [leaf]",
        ("tests/training/optimizer_test.py::test_norms_are_those_of_numpy_in_double_precision"),
    ),
    Fault(
        "fsdp shards the smallest dimension",
        MESH,
        "key=lambda d: -shape[d]",
        "key=lambda d: shape[d]",
        MESH_TESTS,
    ),
    Fault(
        "small arrays are sharded too",
        MESH,
        "if size == 1 or math.prod(shape) * itemsize < max(min_bytes, 1):",
        "if size == 1:",
        MESH_TESTS,
    ),
    Fault(
        "a sharding rule that matches nothing is accepted",
        MESH,
        "if pattern not in used]\n    if unused:",
        "if pattern not in used]\n    if not unused and False:",
        MESH_TESTS,
    ),
    Fault(
        "a batch that the accumulation does not divide is accepted",
        MESH,
        "if batch_size % (accumulation * data * fsdp):",
        "if batch_size % (data * fsdp):",
        MESH_TESTS,
    ),
    Fault(
        "activations are pinned to one batch axis only",
        MESH,
        "return jax.lax.with_sharding_constraint(x, BATCH)",
        'return jax.lax.with_sharding_constraint(x, PartitionSpec("data"))',
        MESH_TESTS,
    ),
    Fault(
        "rows of a process are not in ascending order",
        MESH,
        "for part in sorted(slices)]",
        "for part in sorted(slices, reverse=True)]",
        MESH_TESTS,
    ),
)
