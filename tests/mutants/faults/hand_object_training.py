"""Faults in how hand-object scenes are trained and scored."""

from tests.mutants.fault import Fault

PICTURES = "hand_object/losses/pictures.py"
PICTURE_TESTS = "tests/hand_object/losses/pictures_test.py"
TERM_TESTS = "tests/hand_object/losses/terms_test.py"

FAULTS = (
    Fault(
        "an object behind a hand is penalized",
        PICTURES,
        "free = jnp.where(classes == BACKGROUND, weight, 0.0)",
        "free = weight",
        PICTURE_TESTS,
    ),
    Fault(
        "pixels without a mask count as background",
        PICTURES,
        "weight = jnp.where(classes == UNKNOWN, 0.0, weight)",
        "weight = weight",
        PICTURE_TESTS,
    ),
    Fault(
        "a hand without a pose is still to be explained",
        PICTURES,
        "return jnp.where(classes == UNKNOWN, 1.0, here.astype(jnp.float32))",
        "return jnp.ones(classes.shape)",
        PICTURE_TESTS,
    ),
    Fault(
        "the mask term stops a video without masks",
        "hand_object/losses/terms.py",
        "LossTerm(config.mask, required=masks)",
        "LossTerm(config.mask)",
        TERM_TESTS,
    ),
    Fault(
        "held-out frames stay behind a drift of the others",
        "hand_object/held_out.py",
        "moved = Rotation.from_rotvec(weights @ change) * data",
        "moved = data",
        "tests/hand_object/held_out_test.py",
    ),
    Fault(
        "a lost node is passed over",
        "hand_object/guards.py",
        "if value < LOST)",
        "if value < 0)",
        "tests/hand_object/guards_test.py",
    ),
    Fault(
        "the first row and column of a box are never looked at",
        "hand_object/render/pixels.py",
        "place = jnp.floor(low + ",
        "place = jnp.floor(1.0 + low + ",
        "tests/hand_object/render/pixels_test.py",
    ),
)
