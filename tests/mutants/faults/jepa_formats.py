"""Faults in formats beside DICOM, packed files, shares, records and exported models."""

from tests.mutants.fault import Fault

TOPCON, ZEISS = "jepa3d/data/topcon.py", "jepa3d/data/zeiss_img.py"
OPTIONAL, MATLAB = "jepa3d/data/optional_formats.py", "jepa3d/data/matlab.py"
ARCHIVES, INVENTORY = "jepa3d/data/archives.py", "jepa3d/data/inventory.py"
SHARES, DECODE = "jepa3d/data/shares.py", "jepa3d/data/decode.py"
FORMAT_TESTS = "tests/jepa3d/data/other_formats_test.py"
ARCHIVE_TESTS = "tests/jepa3d/data/archives_test.py"
SHARE_TESTS, DECODE_TESTS = "tests/jepa3d/data/shares_test.py", "tests/jepa3d/data/decode_test.py"
USE_TESTS = "tests/jepa3d/use_test.py"

FAULTS = (
    Fault(
        "Topcon's pitch is the height of the field",
        TOPCON,
        "return height_mm / shape[0], row_um / 1000.0, width_mm / shape[2]",
        "return height_mm / shape[2], row_um / 1000.0, width_mm / shape[0]",
        FORMAT_TESTS,
    ),
    Fault(
        "Topcon's radial scans are volumes",
        TOPCON,
        "if pattern in _PATTERNS:",
        "if pattern == 99:",
        FORMAT_TESTS,
    ),
    Fault(
        "a patient number in a file is not heard",
        INVENTORY,
        "if person and not participant_from_path(path, settings):",
        "if person and participant_from_path(path, settings):",
        FORMAT_TESTS,
    ),
    Fault(
        "Cirrus cubes stand on their heads",
        ZEISS,
        "stack = stored[:, ::-1, ::-1]",
        "stack = stored[:, :, ::-1]",
        FORMAT_TESTS,
    ),
    Fault(
        "MATLAB's last axis is the width",
        MATLAB,
        "stack = np.moveaxis(array, -1, 0)",
        "stack = array",
        FORMAT_TESTS,
    ),
    Fault(
        "NIfTI's steps of 1 mm are believed",
        OPTIONAL,
        "known = any(step != 1.0 for step in steps) and all(step > 0 for step in steps)",
        "known = all(step > 0 for step in steps)",
        FORMAT_TESTS,
        survives="nibabel comes with the [oct] extra, which `make test` does not install",
    ),
    Fault(
        "the first series of an e2e file stands for all",
        OPTIONAL,
        "names.index(part) if part else 0",
        "0",
        FORMAT_TESTS,
    ),
    Fault(
        "archives have no bound",
        ARCHIVES,
        "if size > min(",
        "if size < 0 * min(",
        ARCHIVE_TESTS,
    ),
    Fault(
        "volumes of an archive belong to the archive",
        INVENTORY,
        "(item.participant if own else path)",
        "path",
        ARCHIVE_TESTS,
    ),
    Fault(
        "shares judge duplicates by themselves",
        "jepa3d/data/prepare.py",
        "unsplit, {}, progress, Unjudged())",
        "unsplit, {}, progress)",
        SHARE_TESTS,
    ),
    Fault(
        "what a share did is believed whatever the file is now",
        SHARES,
        "return fresh_row(task.root, task.item, self.rows, SPLIT) if self.rows else None",
        "return self.rows.get(task.item.path)",
        SHARE_TESTS,
    ),
    Fault(
        "shares that are being made are put together",
        SHARES,
        "locks.enter_context(folder_lock.held(folder))",
        "pass",
        SHARE_TESTS,
    ),
    Fault(
        "numbers of a record lose their sign",
        DECODE,
        "return value - 2**64 if value >= 2**63 else value, place",
        "return value, place",
        DECODE_TESTS,
    ),
    Fault(
        "the trained encoder is exported",
        "jepa3d/export.py",
        "jax.device_get(state.ema), step)",
        'jax.device_get(state.params["encoder"]), step)',
        USE_TESTS,
    ),
    Fault(
        "embeddings are the mean of all tokens",
        "jepa3d/predict.py",
        "share = foreground[0].astype(jnp.float32)",
        "share = jnp.ones_like(foreground[0], jnp.float32)",
        USE_TESTS,
    ),
)
