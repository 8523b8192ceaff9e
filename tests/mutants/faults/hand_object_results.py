"""Faults in what comes after training: meshes, figures, files, pictures and the page."""

from tests.mutants.fault import Fault

MESHING, MESHING_TESTS = "hand_object/meshing.py", "tests/hand_object/meshing_test.py"
CLOSED, CLOSED_TESTS = (
    "hand_object/metrics/closed_surface.py",
    "tests/hand_object/metrics/closed_surface_test.py",
)
SCORES, SCORES_TESTS = (
    "hand_object/metrics/scores.py",
    "tests/hand_object/metrics/scores_test.py",
)
GLB, GLB_TESTS = "hand_object/formats/glb.py", "tests/hand_object/formats/glb_test.py"
HANDS, METRICS_TESTS = (
    "hand_object/metrics/hands.py",
    "tests/hand_object/metrics/metrics_test.py",
)

FAULTS = (
    Fault(
        "the grid of marching cubes is half a cell off",
        MESHING,
        "values[wanted] = _asked(distance, low + index * (cell / refine), name)",
        "values[wanted] = _asked(distance, low + (index + 0.5) * (cell / refine), name)",
        MESHING_TESTS,
    ),
    Fault(
        "a surface that leaves the box stays open",
        MESHING,
        "closed = np.pad(values, 1, constant_values=max(most, spacing))",
        "closed = np.pad(values, 1, mode='edge')",
        MESHING_TESTS,
    ),
    Fault(
        "cells are refined by their distance alone",
        MESHING,
        "near = (np.abs(coarse) < REACH * cell) | (",
        "near = (np.abs(coarse) < REACH * cell) & (",
        MESHING_TESTS,
    ),
    Fault(
        "all pieces of a surface are kept",
        MESHING,
        "if count > 1:",
        "if count > 99:",
        MESHING_TESTS,
    ),
    Fault(
        "one direction alone says what is inside",
        CLOSED,
        "inside[boxed] = np.sum(votes, axis=0) >= 2",
        "inside[boxed] = np.sum(votes, axis=0) >= 1",
        CLOSED_TESTS,
    ),
    Fault(
        "figures of frames without a hand count",
        SCORES,
        "valid = mine.valid & true.valid",
        "valid = true.valid",
        SCORES_TESTS,
    ),
    Fault(
        "the object is compared in the world in place of relative to the wrist",
        SCORES,
        "found.hands[side].joints[frames, 0],",
        "truth.hands[side].joints[frames, 0],",
        SCORES_TESTS,
    ),
    Fault(
        "a jerk goes across frames without a hand",
        HANDS,
        "sliding_window_view(valid, order + 1), axis=1)",
        "sliding_window_view(valid, 1), axis=1)[order:]",
        METRICS_TESTS,
    ),
    Fault(
        "joints of a file turn relative to the world",
        GLB,
        'own = np.einsum("tba,tbc->tac", turns[:, parent], own)',
        "own = own + 0",
        GLB_TESTS,
    ),
    Fault(
        "a turn goes the long way around",
        GLB,
        "signs = np.cumprod(np.where(flips == 0, 1, flips))",
        "signs = np.ones_like(flips)",
        GLB_TESTS,
    ),
    Fault(
        "a hand that is not there is shown",
        GLB,
        "if not valid.all():",
        "if not valid.any():",
        GLB_TESTS,
    ),
    Fault(
        "an overlay hides the input",
        "hand_object/pictures.py",
        "mixed = OPACITY * picture + (1 - OPACITY) * image",
        "mixed = picture + 0 * image",
        "tests/hand_object/pictures_test.py",
    ),
    Fault(
        "contact of frames without a hand cools",
        "hand_object/metrics/contact_heat.py",
        "heat[side] = own / max(len(frames), 1)",
        "heat[side] = own / len(found)",
        "tests/hand_object/metrics/contact_heat_test.py",
    ),
    Fault(
        "a name becomes markup of the page",
        "hand_object/viewer/page.py",
        'text = json.dumps(scene, separators=(",", ":")).replace("</", "<\\\\/")\n    filled = {\n'
        '        "title": html.escape(found.name),',
        'text = json.dumps(scene, separators=(",", ":"))\n    filled = {\n'
        '        "title": found.name,',
        "tests/hand_object/viewer/page_test.py::test_names_are_text_not_markup",
    ),
)
