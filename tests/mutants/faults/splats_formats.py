"""Faults in the files of Gaussians that other programs read and write."""

from tests.mutants.fault import Fault

CLOUD, CODES = "splats/formats/cloud.py", "splats/formats/spz_codes.py"
QUATERNIONS = "splats/formats/quaternions.py"
CLOUD_TESTS = "tests/splats/formats/cloud_test.py"
ROUND_TRIP = "tests/splats/formats/round_trip_test.py"

FAULTS = (
    Fault(
        "free slots are exported",
        CLOUD,
        "kept = cloud.select(alive)",
        "kept = cloud",
        CLOUD_TESTS,
    ),
    Fault(
        "sizes are not scaled with the world",
        CLOUD,
        "cloud.log_scales + np.log(scale)",
        "cloud.log_scales",
        CLOUD_TESTS,
    ),
    Fault(
        "harmonics are not turned with the world",
        CLOUD,
        'np.einsum("kl,nlc->nkc", turn, cloud.harmonics.astype(np.float64))',
        "cloud.harmonics",
        CLOUD_TESTS,
    ),
    Fault(
        "the quaternion product is taken in the other order",
        QUATERNIONS,
        "[x, w, -z, y], [y, z, w, -x], [z, -y, x, w]",
        "[x, w, z, -y], [y, -z, w, x], [z, y, -x, w]",
        CLOUD_TESTS,
    ),
    Fault(
        "negative positions of .spz lose their sign",
        CODES,
        ">> 8) / 2.0**bits",
        '.view("<u4") >> 8) / 2.0**bits',
        ROUND_TRIP,
    ),
    Fault(
        "colors of .spz have another scale",
        CODES,
        "_COLOR_SCALE = 0.15",
        "_COLOR_SCALE = 0.25",
        f"{ROUND_TRIP} tests/splats/formats/cloud_test.py",
    ),
)
