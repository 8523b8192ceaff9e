"""Faults in the stages of hand-object reconstruction: terms, windows, balance, hand-off."""

from tests.mutants.fault import Fault

CONTACT, CONTACT_TESTS = "hand_object/losses/contact.py", "tests/hand_object/losses/contact_test.py"
TEMPORAL = "hand_object/losses/temporal.py"
TEMPORAL_TESTS = "tests/hand_object/losses/temporal_test.py"
BALANCE, BALANCE_TESTS = "hand_object/losses/balance.py", "tests/hand_object/losses/balance_test.py"
PHASES, PHASE_TESTS = "hand_object/phases.py", "tests/hand_object/phases_test.py"
STAGE, STAGE_TESTS = "hand_object/stage.py", "tests/hand_object/stage_test.py"
AUXILIARY = "hand_object/losses/auxiliary.py"
GRASPS, GRASP_TESTS = "hand_object/grasps.py", "tests/hand_object/grasps_test.py"
HAND_OFF, HAND_OFF_TESTS = "hand_object/hand_off.py", "tests/hand_object/hand_off_test.py"
FAILURES = "tests/failures/hand_object_stages_test.py"

FAULTS = (
    Fault(
        "a hand is pushed out of what it does not touch",
        CONTACT,
        "depth = jax.nn.relu(-distances)",
        "depth = jnp.abs(distances)",
        CONTACT_TESTS,
    ),
    Fault(
        "contact acts outside of grasps",
        CONTACT,
        "weight = holding.astype(distances.dtype)",
        "weight = jnp.ones(distances.shape[0], distances.dtype)",
        CONTACT_TESTS,
    ),
    Fault(
        "a zone that does not touch is drawn to the object",
        CONTACT,
        "counted = (touching & (gap < reach))",
        "counted = (gap < reach)",
        CONTACT_TESTS,
    ),
    Fault(
        "deep penetration throws the hand out",
        CONTACT,
        "jnp.where(depth <= LINEAR_FROM, square, linear)",
        "square",
        CONTACT_TESTS,
    ),
    Fault(
        "frames over a gap count as neighbors",
        TEMPORAL,
        "near = np.diff(frames) <= longest_gap",
        "near = np.diff(frames) <= 10**6",
        TEMPORAL_TESTS,
    ),
    Fault(
        "a gap does not count with its length",
        TEMPORAL,
        "return (second - first).astype(np.float32)[:, None, None]",
        "return np.ones(len(first), np.float32)[:, None, None]",
        TEMPORAL_TESTS,
    ),
    Fault(
        "turns are measured from the world",
        TEMPORAL,
        '"pba,pbc->pac"',
        '"pab,pcb->pac"',
        TEMPORAL_TESTS,
    ),
    Fault(
        "the square of the motion is not bounded",
        TEMPORAL,
        "return jnp.mean(square / (1.0 + jnp.sqrt(1.0 + square)))",
        "return jnp.mean(square / 2.0)",
        TEMPORAL_TESTS,
    ),
    Fault(
        "the last update of a window is left out",
        "hand_object/loss_config.py",
        "else self.last + 1",
        "else self.last",
        PHASE_TESTS,
    ),
    Fault(
        "a phase that never begins is let through",
        PHASES,
        "if all(count >= least for count in counts.values()):",
        "if any(count >= least for count in counts.values()):",
        PHASE_TESTS,
    ),
    Fault(
        "how phases overlap need not be said",
        PHASES,
        "if config.overlap is None:",
        "if config.overlap == '':",
        PHASE_TESTS,
    ),
    Fault(
        "the shares leave out what the others take",
        BALANCE,
        "return shares[name] / (1.0 - sum(shares.values()))",
        "return 3.0 * shares[name]",
        BALANCE_TESTS,
    ),
    Fault(
        "a gradient that leaps passes the cap",
        BALANCE,
        'jnp.where(useful, jnp.minimum(factor, cap), before["factor"])',
        'jnp.where(useful, factor, before["factor"])',
        BALANCE_TESTS,
    ),
    Fault(
        "a fixed weight passes the cap",
        BALANCE,
        'if config.mode == "fixed":',
        'if config.mode == "none":',
        BALANCE_TESTS,
    ),
    Fault(
        "auxiliary terms stay in a leap of the loss",
        BALANCE,
        "& (loss > limit)",
        "& (loss > limit + 1e9)",
        BALANCE_TESTS,
    ),
    Fault(
        "a batch without a grasp changes the strength of contact",
        BALANCE,
        "useful = due & (own > 0)",
        "useful = due & (own >= 0)",
        BALANCE_TESTS,
    ),
    Fault(
        "contact is detached from the poses",
        AUXILIARY,
        'skin = hand.vertices if "poses" in phase.moves else jax.lax.stop_gradient(hand.vertices)',
        "thing, skin = jax.lax.stop_gradient((thing, hand.vertices))",
        STAGE_TESTS,
    ),
    Fault(
        "contact carves the object",
        AUXILIARY,
        'if "object_sdf" not in phase.moves:',
        "if False:",
        STAGE_TESTS,
    ),
    Fault(
        "a term is measured only when its window is open",
        STAGE,
        "name: (applied + soon >= start) & (applied < stop)",
        "name: (applied >= start) & (applied < stop)",
        STAGE_TESTS,
    ),
    Fault(
        "a contact phase without a grasp is let through",
        STAGE,
        "if not any(own.holding.any() for own in grasps.values()):",
        "if not grasps:",
        STAGE_TESTS,
    ),
    Fault(
        "a hand that is not there holds the object",
        GRASPS,
        "holding = closed(near) & there",
        "holding = closed(near)",
        GRASP_TESTS,
    ),
    Fault(
        "masks say nothing about a grasp",
        GRASPS,
        "touch[frame] = bool((hand & (mask == OBJECT)).any())",
        "touch[frame] = True",
        GRASP_TESTS,
    ),
    Fault(
        "a stage starts from another sequence",
        HAND_OFF,
        'if theirs["content"] != ours["content"]:',
        'if theirs["name"] != ours["name"]:',
        HAND_OFF_TESTS,
    ),
    Fault(
        "a figure that is no number counts as found again",
        HAND_OFF,
        "if not abs(found[name] - saved[name]) <= TOLERANCE * scale:",
        "if abs(found[name] - saved[name]) > TOLERANCE * scale:",
        HAND_OFF_TESTS,
    ),
    Fault(
        "a detached term trains to the end",
        "hand_object/guards.py",
        'and not metrics[f"measured/{name}"]',
        'and metrics[f"measured/{name}"] < 0',
        FAILURES,
    ),
    Fault(
        "a phase that never acted ends well",
        "hand_object/guards.py",
        'if applied == stop and not metrics[f"phase/{name}"]:',
        'if applied > stop and not metrics[f"phase/{name}"]:',
        FAILURES,
    ),
)
