"""Faults in what OCT files say: gray values, place, eye, and whose volume they are part of."""

from tests.mutants.fault import Fault

GEOMETRY, PADDING = "jepa3d/data/geometry.py", "jepa3d/data/padding.py"
DICOM, FRAMES = "jepa3d/data/dicom.py", "jepa3d/data/dicom_frames.py"
GROUPS, SERIES = "jepa3d/data/image_groups.py", "jepa3d/data/series.py"
PLAN, DUPLICATES = "jepa3d/data/plan.py", "jepa3d/data/duplicates.py"
TAGS_TESTS = "tests/jepa3d/data/tags_test.py"
VOLUME_TESTS = "tests/jepa3d/data/one_volume_test.py"
WALK_TESTS, DUPLICATE_TESTS = (
    "tests/jepa3d/data/walk_test.py",
    "tests/jepa3d/data/duplicates_test.py",
)

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
    Fault(
        "only the last number of an image's name counts",
        GROUPS,
        "fixed = [place for place in differing if place not in running[-1:]]",
        "fixed = []",
        VOLUME_TESTS,
    ),
    Fault(
        "persons are counted like frames",
        GROUPS,
        "return bool(words) and words[-1] in _PERSON_WORDS",
        "return False",
        VOLUME_TESTS,
    ),
    Fault(
        "a TIFF stack is one image",
        "jepa3d/data/images.py",
        "return max(_pages(image), _imagej_pages(image))",
        "return 1",
        VOLUME_TESTS,
    ),
    Fault(
        "stacks of a series are woven together",
        SERIES,
        '_ASPECTS = ("participant", "laterality", "stack")',
        '_ASPECTS = ("participant", "laterality")',
        VOLUME_TESTS,
    ),
    Fault(
        "files of several persons are read as one volume",
        DICOM,
        "if len(found) > 1 and not counts_frames:",
        "if False:",
        VOLUME_TESTS,
    ),
    Fault(
        "the first frame stands for a whole file",
        DICOM,
        "        if header.frames > 1:",
        "        if False:",
        VOLUME_TESTS,
    ),
    Fault(
        "a linked folder is read as often as it is linked",
        "jepa3d/data/walk.py",
        "if where is not None or link",
        "if link",
        WALK_TESTS,
    ),
    Fault(
        "a scan of two persons stays with the first",
        DUPLICATES,
        'self.shared[first["path"]] = row["path"]',
        "pass",
        DUPLICATE_TESTS,
    ),
    Fault(
        "a shared scan is forgotten by the next run",
        DUPLICATES,
        'row["status"] == "ok" or row["reason"] == SkipReason.SHARED_VOLUME',
        'row["status"] == "ok"',
        DUPLICATE_TESTS,
    ),
    Fault(
        "a record that was taken back stays in its shard",
        PLAN,
        " or _owner(row) in shared)",
        ")",
        DUPLICATE_TESTS,
    ),
    Fault(
        "equal voxels are not noticed",
        DUPLICATES,
        '("voxels", row["voxel_hash"])',
        '("voxels", "")',
        DUPLICATE_TESTS,
    ),
    Fault(
        "two runs prepare one folder",
        "jepa3d/data/prepare.py",
        "with folder_lock.held(output), finished(output) as shares:",
        "with finished(output) as shares:",
        "tests/jepa3d/data/prepare_test.py::test_a_second_prepare_into_one_folder_is_refused_in_one_sentence",
    ),
)
