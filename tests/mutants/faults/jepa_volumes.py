"""Faults in what an OCT file says of itself: gray values, place, eye."""

from tests.mutants.fault import Fault

GEOMETRY, PADDING = "jepa3d/data/geometry.py", "jepa3d/data/padding.py"
DICOM, FRAMES = "jepa3d/data/dicom.py", "jepa3d/data/dicom_frames.py"
TAGS_TESTS = "tests/jepa3d/data/tags_test.py"

FAULTS = (
    Fault(
        "the pitch is taken in the order in which frames are stored",
        GEOMETRY,
        "np.diff(np.sort(_across_lines(lines)))",
        "np.abs(np.diff(_across_lines(lines)))",
        TAGS_TESTS,
    ),
    Fault(
        "volumes scanned upward are turned around",
        GEOMETRY,
        "sense = -1.0 if",
        "sense = 1.0 if",
        TAGS_TESTS,
    ),
    Fault(
        "resolutions are taken for millimeters",
        GEOMETRY,
        "value = numbers[0] / 1000.0 if numbers",
        "value = numbers[0] if numbers",
        TAGS_TESTS,
    ),
    Fault(
        "padding stays as bright as it was stored",
        DICOM,
        "pixels = np.where(padded, np.uint8(0), pixels)",
        "pass",
        TAGS_TESTS,
    ),
    Fault(
        "padding counts in the range of gray values",
        "jepa3d/data/intensity.py",
        "sample = sample[~padded.reshape(-1)[::stride]]",
        "pass",
        TAGS_TESTS,
    ),
    Fault(
        "the range of padding ends before its limit",
        PADDING,
        "(stored <= max(ends))",
        "(stored < max(ends) + (limit is None))",
        TAGS_TESTS,
    ),
    Fault(
        "words in the high bits stay there",
        FRAMES,
        "        words = words >> np.uint16(header.unused_low_bits)",
        "        pass",
        TAGS_TESTS,
    ),
    Fault(
        "the code for the left eye means the right one",
        "jepa3d/data/laterality.py",
        '"7771000": "L"',
        '"7771000": "R"',
        TAGS_TESTS,
    ),
)
