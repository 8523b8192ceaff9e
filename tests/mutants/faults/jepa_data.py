"""Faults in the preparation, the records and the augmentation of OCT volumes."""

from tests.mutants.fault import Fault

AUGMENT, RESAMPLE = "jepa3d/data/augment.py", "jepa3d/data/resample.py"
GEOMETRY, FRAMES = "jepa3d/data/geometry.py", "jepa3d/data/dicom_frames.py"
INTENSITY, SPLITS = "jepa3d/data/intensity.py", "jepa3d/data/splits.py"
AUGMENT_TESTS = "tests/jepa3d/data/augment_test.py"
RESAMPLE_TESTS = "tests/jepa3d/data/resample_test.py"
READER_TESTS = "tests/jepa3d/data/reader_synthetic_test.py"
OCT_FAILURES = "tests/failures/oct_data_test.py"
SOURCE_TESTS = "tests/jepa3d/data/source_test.py"
PREPARE_TESTS = "tests/jepa3d/data/prepare_test.py"

FAULTS = (
    Fault(
        "volumes are not centered",
        AUGMENT,
        "return (volume.astype(jnp.float32) / 255.0 - mean) / jnp.maximum(std, sigma_floor)",
        "return (volume.astype(jnp.float32) / 255.0) / jnp.maximum(std, sigma_floor)",
        AUGMENT_TESTS,
    ),
    Fault(
        "a flat volume blows up",
        AUGMENT,
        "/ jnp.maximum(std, sigma_floor)",
        "/ std",
        AUGMENT_TESTS,
    ),
    Fault(
        "the foreground does not move along",
        AUGMENT,
        "tokens = (_resample(foreground.astype(jnp.float32), maps) >= 0.5) & real",
        "tokens = foreground",
        AUGMENT_TESTS,
    ),
    Fault(
        "volumes are flipped along the depth",
        AUGMENT,
        "(jnp.float32(1.0), shift),",
        "(pitch_sign, shift),",
        AUGMENT_TESTS,
    ),
    Fault(
        "gamma loses the sign",
        AUGMENT,
        "bent = jnp.sign(volume) * magnitude**exponent",
        "bent = magnitude**exponent",
        AUGMENT_TESTS,
    ),
    Fault(
        "the window is centered on the scan, not on the retina",
        RESAMPLE,
        "starts[1] = _clamped_start((center_row + 0.5) * spacing_mm[1], window[1], extent[1])",
        "starts[1] = _clamped_start(0.5 * extent[1], window[1], extent[1])",
        RESAMPLE_TESTS,
    ),
    Fault(
        "uncovered voxels are black",
        RESAMPLE,
        "np.full(shape, np.percentile(valid, BACKGROUND_PERCENTILE), np.uint8)",
        "np.zeros(shape, np.uint8)",
        RESAMPLE_TESTS,
    ),
    Fault(
        "the spacing of the grid is that of the source",
        RESAMPLE,
        "spacing_mm=tuple(float(w / n) for w, n in zip(window, shape))",
        "spacing_mm=tuple(float(s) for s in spacing_mm)",
        RESAMPLE_TESTS,
    ),
    Fault(
        "statistics include the fill",
        RESAMPLE,
        "kept = volume[inside]",
        "kept = volume",
        RESAMPLE_TESTS,
    ),
    Fault(
        "averages over a bin are not normalized",
        RESAMPLE,
        "return cells, overlap / overlap.sum()",
        "return cells, overlap",
        RESAMPLE_TESTS,
    ),
    Fault(
        "spacing in shared functional groups is missed",
        GEOMETRY,
        'shared_measures = _first(shared, "PixelMeasuresSequence") if shared is not None else None',
        "shared_measures = None",
        f"{READER_TESTS} {OCT_FAILURES}",
    ),
    Fault(
        "axial and lateral spacing are exchanged",
        GEOMETRY,
        "return (pitch, axial, lateral), {",
        "return (pitch, lateral, axial), {",
        READER_TESTS,
    ),
    Fault(
        "frames stay in the order of the file",
        GEOMETRY,
        'return np.argsort(along, kind="stable"), "plane_position"',
        'return np.arange(frames), "plane_position"',
        READER_TESTS,
    ),
    Fault(
        "radial scans are taken for rasters",
        GEOMETRY,
        "_spread_degrees(directions) > _PARALLEL_DEGREES",
        "_spread_degrees(directions) > 360.0",
        f"{READER_TESTS} {OCT_FAILURES}",
    ),
    Fault(
        "the copied slice thickness of a Cirrus is believed",
        GEOMETRY,
        'copied = scanner == "zeiss_cirrus" and abs',
        'copied = scanner == "none" and abs',
        READER_TESTS,
    ),
    Fault(
        "a broken frame is a copy of its neighbor",
        FRAMES,
        "blend = (1.0 - weight) * low + weight * high",
        "blend = low",
        "tests/jepa3d/data/frames_test.py",
    ),
    Fault(
        "any share of broken frames is accepted",
        FRAMES,
        "if len(errors) > allowed:\n        raise _refusal",
        "if len(errors) > len(frames):\n        raise _refusal",
        f"{READER_TESTS} {OCT_FAILURES}",
    ),
    Fault(
        "unused high bits are not masked",
        FRAMES,
        "words = words & np.uint16((1 << bits) - 1)",
        "words = words & np.uint16(0xFFFF)",
        "tests/jepa3d/data/frames_test.py",
    ),
    Fault(
        "compressed pixels are read as uncompressed",
        FRAMES,
        "if raw[:4] == _ITEM:",
        "if raw[:4] == b'none':",
        f"{READER_TESTS} {OCT_FAILURES}",
    ),
    Fault(
        "16-bit words that carry 8 bits are stretched",
        INTENSITY,
        "for factor in (257, 256):",
        "for factor in ():",
        "tests/jepa3d/data/intensity_test.py",
    ),
    Fault(
        "added files move a person to another split",
        SPLITS,
        "settled = earlier.get(name) or recommended.get(name)",
        "settled = recommended.get(name)",
        "tests/jepa3d/data/intensity_test.py",
    ),
    Fault(
        "the split depends on the seed only",
        SPLITS,
        'hashlib.sha256(f"{seed}:{participant}".encode())',
        'hashlib.sha256(f"{seed}".encode())',
        (
            "tests/jepa3d/data/prepare_test.py"
            "::test_hash_split_is_stable_under_additions_and_has_the_right_share"
        ),
    ),
)
