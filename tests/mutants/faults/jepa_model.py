"""Faults in masks, losses, model and diagnostics of V-JEPA3D."""

from tests.mutants.fault import Fault

MASKS, LOSSES, ROPE = "jepa3d/masks.py", "jepa3d/losses.py", "jepa3d/model/rope.py"
JEPA, VIT, ATTENTION = "jepa3d/model/jepa.py", "jepa3d/model/vit.py", "jepa3d/model/attention.py"
CHUNKED, PATCHES = "jepa3d/model/chunked_attention.py", "jepa3d/model/patches.py"
DIAGNOSTICS, COUNTS = "jepa3d/diagnostics.py", "jepa3d/model/counts.py"
MASK_TESTS, LOSS_TESTS = "tests/jepa3d/masks_test.py", "tests/jepa3d/losses_test.py"
ROPE_TESTS, JEPA_TESTS = "tests/jepa3d/model/rope_test.py", "tests/jepa3d/model/jepa_test.py"
ATTENTION_TESTS = "tests/jepa3d/model/attention_test.py"
DIAGNOSTIC_TESTS = "tests/jepa3d/diagnostics_test.py"
SKILL, SKILL_TESTS = "jepa3d/skill.py", "tests/jepa3d/skill_test.py"
COUNT_TESTS = "tests/jepa3d/model/counts_test.py"
TASK_TESTS = "tests/jepa3d/task_test.py"

FAULTS = (
    Fault(
        "the target is the online encoder",
        "jepa3d/task.py",
        "self.predicted(params, context.ema, seen, masks)",
        'self.predicted(params, params["encoder"], seen, masks)',
        f"{TASK_TESTS}::test_the_targets_are_those_of_the_average_and_carry_no_gradient",
    ),
    Fault(
        "gradients flow into the target encoder",
        JEPA,
        'target_encoder = jax.lax.stop_gradient(target_params["encoder"])',
        'target_encoder = target_params["encoder"]',
        (
            "tests/jepa3d/model/jepa_test.py"
            "::test_no_gradient_reaches_the_target_encoder_and_every_parameter_gets_one"
        ),
    ),
    Fault(
        "targets are not normalized",
        JEPA,
        "return (x * jax.lax.rsqrt(variance + TARGET_EPSILON)).reshape(shape)",
        "return x.reshape(shape)",
        (
            "tests/jepa3d/model/jepa_test.py"
            "::test_targets_have_mean_zero_and_variance_one_per_token_and_level"
        ),
    ),
    Fault(
        "targets are gathered at the context",
        JEPA,
        "target_BxTxD=gather_tokens(target, target_ids)",
        "target_BxTxD=gather_tokens(target, target_ids - 1)",
        JEPA_TESTS,
    ),
    Fault(
        "the predictor does not know which positions are targets",
        JEPA,
        "ids = jnp.concatenate([context_ids, target_ids], axis=1)",
        "ids = jnp.concatenate([context_ids, jnp.zeros_like(target_ids)], axis=1)",
        JEPA_TESTS,
    ),
    Fault(
        "every mask set has the first mask token",
        "jepa3d/model/predictor.py",
        "mask_tokens[mask_index]",
        "mask_tokens[0]",
        f"{JEPA_TESTS}::test_every_mask_set_has_a_mask_token_of_its_own",
    ),
    Fault(
        "residual projections of all blocks are scaled alike",
        JEPA,
        "index = jnp.arange(1, kernel.shape[0] + 1, dtype=jnp.float32)",
        "index = jnp.ones(kernel.shape[0], dtype=jnp.float32)",
        ("tests/jepa3d/model/jepa_test.py::test_initial_values_follow_the_reference"),
    ),
    Fault(
        "the visible tokens have the positions of the first tokens",
        JEPA,
        "rope = (gather_tokens(rope[0], ids), gather_tokens(rope[1], ids))\n    return",
        "rope = (rope[0][:, : ids.shape[1]], rope[1][:, : ids.shape[1]])\n    return",
        f"{JEPA_TESTS}::test_tokens_have_the_positions_of_their_ids_in_any_order",
    ),
    Fault(
        "keys are not rotated",
        VIT,
        "q, k = apply_rope(q, *rope), apply_rope(k, *rope)",
        "q = apply_rope(q, *rope)",
        (
            "tests/jepa3d/vjepa2_weights_test.py"
            "::test_full_and_visible_only_encoder_give_the_recorded_features"
        ),
    ),
    Fault(
        "the attention block has no residual",
        VIT,
        'x_BxNxD = x_BxNxD + dense(config.dim, self.dtype, "out")(mixed)',
        'x_BxNxD = dense(config.dim, self.dtype, "out")(mixed)',
        (
            "tests/jepa3d/vjepa2_weights_test.py"
            "::test_full_and_visible_only_encoder_give_the_recorded_features"
        ),
    ),
    Fault(
        "the tiled variant is a true rotation",
        ROPE,
        'if variant == "tiled":',
        'if variant == "none":',
        ROPE_TESTS,
    ),
    Fault(
        "height is not scaled to the reference grid",
        ROPE,
        "height = height * ((reference_grid - 1) / max(grid[1] - 1, 1))",
        "height = height * 1.0",
        ROPE_TESTS,
    ),
    Fault(
        "the rotation has the other sign",
        ROPE,
        "swapped = jnp.concatenate([-odd, even], axis=-1)",
        "swapped = jnp.concatenate([odd, -even], axis=-1)",
        ROPE_TESTS,
    ),
    Fault(
        "values of a patch run in another order",
        PATCHES,
        "blocks.transpose(0, 1, 3, 5, 7, 2, 4, 6)",
        "blocks.transpose(0, 1, 3, 5, 7, 4, 2, 6)",
        ("tests/jepa3d/model/jepa_test.py::test_patches_equal_a_strided_convolution"),
    ),
    Fault(
        "attention without its scale",
        ATTENTION,
        '"bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32',
        '"bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32',
        ("tests/jepa3d/model/attention_test.py::test_plain_is_softmax_attention"),
    ),
    Fault(
        "the largest score is not subtracted",
        ATTENTION,
        "weights = jnp.exp(scores - top)",
        "weights = jnp.exp(scores)",
        (
            "tests/jepa3d/model/attention_test.py::test_extreme_scores_give_finite_values_and_gradients"
        ),
    ),
    Fault(
        "context and targets overlap",
        MASKS,
        "kind = jnp.where(visible, -1.0, ",
        "kind = jnp.where(visible & False, -1.0, ",
        MASK_TESTS,
    ),
    Fault(
        "covered tokens are the context",
        MASKS,
        "jnp.where(hidden, 3.0, 1.0)",
        "jnp.where(hidden, 1.0, 3.0)",
        MASK_TESTS,
    ),
    Fault(
        "the order within the covered tokens is not random",
        MASKS,
        "lot = noise_3xN[2] ** (1.0 / weight)",
        "lot = jnp.arange(tokens) / tokens",
        f"{MASK_TESTS}::test_targets_are_drawn_alike_from_all_covered_tokens",
    ),
    Fault(
        "boxes ignore the foreground",
        MASKS,
        "if config.foreground_floor > 0 and foreground is not None:",
        "if config.foreground_floor > 0 and foreground is None:",
        MASK_TESTS,
    ),
    Fault(
        "boxes never reach the end of an axis",
        MASKS,
        "jnp.floor(uniform * (room_3 + 1)[None])",
        "jnp.floor(uniform * room_3[None])",
        MASK_TESTS,
    ),
    Fault(
        "padded samples count in the loss",
        LOSSES,
        "return Total(jnp.sum(per_sample * weights_B), weights_B.sum())",
        "return Total(jnp.sum(per_sample), weights_B.sum())",
        LOSS_TESTS,
    ),
    Fault(
        "constants are means",
        SKILL,
        "with_it = _median(sorted_VxPxD, known_P, None)",
        "with_it = target_VxPxD.mean(axis=0)",
        SKILL_TESTS,
    ),
    Fault(
        "the held-out constants know the scored volume",
        SKILL,
        "place = place + (0 if left_out is None else (place >= left_out))",
        "place = place + 0",
        SKILL_TESTS,
    ),
    Fault(
        "padding is scored",
        SKILL,
        "usable = chosen_VxP[:count] & (known_P >= LEAST)[None]",
        "usable = np.broadcast_to((known_P >= LEAST)[None], chosen_VxP[:count].shape)",
        SKILL_TESTS,
    ),
    Fault(
        "a collapsed rank costs nothing",
        SKILL,
        "return skill - max(0.0, 1.0 - rank / RANK_WANTED)",
        "return skill",
        "tests/failures/jepa3d_test.py::test_8_the_most_collapsed_checkpoint_is_not_the_best_one",
    ),
    Fault(
        "padding is predicted like everything else",
        MASKS,
        "jnp.where(~real, 0.0, jnp.where(hidden, 2.0, 1.0))",
        "jnp.where(hidden, 2.0, 1.0)",
        MASK_TESTS,
    ),
    Fault(
        "no retina need stay visible",
        MASKS,
        "kind = jnp.where(kept, 0.0, ",
        "kind = jnp.where(kept & False, 0.0, ",
        MASK_TESTS,
    ),
    Fault(
        "padding enters the mean of the batch",
        LOSSES,
        "share_BxN = covered * weights_B[:, None]",
        "share_BxN = jnp.ones_like(covered) * weights_B[:, None]",
        LOSS_TESTS,
    ),
    Fault(
        "a leak into the context is let pass",
        "jepa3d/dependence.py",
        'if effects["hidden"] > UNSEEN:',
        'if effects["hidden"] < 0.0:',
        "tests/jepa3d/dependence_test.py",
    ),
    Fault(
        "the dense loss has its full weight at once",
        LOSSES,
        "ramp = jnp.clip(progress, 0.0, 1.0) if last > first else 1.0",
        "ramp = 1.0",
        LOSS_TESTS,
    ),
    Fault(
        "skill is the quotient itself",
        LOSSES,
        "return jnp.where(safe, 1.0 - mean / jnp.where(safe, reference, 1.0), 0.0)",
        "return jnp.where(safe, mean / jnp.where(safe, reference, 1.0), 0.0)",
        LOSS_TESTS,
    ),
    Fault(
        "the distance to the farthest target is taken",
        LOSSES,
        "return jnp.sqrt(jnp.min(squared, axis=1))",
        "return jnp.sqrt(jnp.max(squared, axis=1))",
        LOSS_TESTS,
    ),
    Fault(
        "the centered rank is not centered",
        DIAGNOSTICS,
        "x = x - x.mean(axis=0)[None]",
        "x = x - 0.0",
        (
            "tests/jepa3d/diagnostics_test.py"
            "::test_only_the_uncentered_rank_sees_a_constant_plus_noise"
        ),
    ),
    Fault(
        "pairs of a member with itself count",
        DIAGNOSTICS,
        "(total - themselves) / jnp.maximum(pairs, 1.0)",
        "total / jnp.maximum(pairs, 1.0)",
        ("tests/jepa3d/diagnostics_test.py::test_cosines_agree_with_all_pairs"),
    ),
    Fault(
        "attention is not among the operations",
        COUNTS,
        "+ 4 * tokens * d\n",
        "\n",
        (
            "tests/jepa3d/model/counts_test.py"
            "::test_operations_per_volume "
            "tests/jepa3d/model/counts_test.py"
            "::test_operations_equal_a_count_over_the_matmuls"
        ),
    ),
)
