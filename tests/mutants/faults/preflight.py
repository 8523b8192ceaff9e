"""Faults in what is found out before a run."""

from tests.mutants.fault import Fault

ROOM, TESTS = "launch/preflight", "tests/launch/preflight"

FAULTS = (
    Fault(
        "a collective in a loop counts once",
        f"{ROOM}/hlo.py",
        "executed(module, loop[2], times * count, fusions)",
        "executed(module, loop[2], times, fusions)",
        f"{TESTS}/collectives_test.py",
    ),
    Fault(
        "asynchronous collectives are not seen",
        f"{ROOM}/collectives.py",
        '(-start)?\\(")\nSHAPE',
        '()\\(")\nSHAPE',
        f"{TESTS}/collectives_test.py",
    ),
    Fault(
        "operands of a start count as its result",
        f"{ROOM}/collectives.py",
        "result = parts[1] if len(parts) > 1 else result",
        "result = result",
        f"{TESTS}/collectives_test.py",
    ),
    Fault(
        "aliased outputs are counted",
        f"{ROOM}/memory.py",
        '- 2 * gib["alias"]',
        '- gib["alias"]',
        f"{TESTS}/figures_test.py",
    ),
    Fault(
        "seconds of unknown calls are not given back",
        f"{ROOM}/figures.py",
        "UNKNOWN_COST.search(line) is not None",
        "False and UNKNOWN_COST.search(line) is not None",
        f"{TESTS}/figures_test.py::test_a_floor_above_a_second_is_not_cut_to_its_fraction",
    ),
    Fault(
        "a program that is too large passes",
        f"{ROOM}/fit.py",
        "if total > usable:",
        "if total > 2 * usable:",
        f"{TESTS}/forecast_test.py",
    ),
    Fault(
        "the verdict of another compiler is taken",
        f"{ROOM}/cache.py",
        "json.dumps([FORMAT, topology, sorted(versions.items())])",
        "json.dumps([FORMAT, topology])",
        f"{TESTS}/cache_test.py",
    ),
    Fault(
        "values that are not finite pass",
        f"{ROOM}/data_run.py",
        """array.dtype.kind == "f" and not""",
        """array.dtype.kind == "x" and not""",
        f"{TESTS}/data_run_test.py",
    ),
    Fault(
        "a failure ends with exit code 0",
        f"{ROOM}/rows.py",
        "any(row.state == FAIL for row in rows)",
        "all(row.state == FAIL for row in rows)",
        f"{TESTS}/command_test.py",
    ),
    Fault(
        "a changed config does not matter to a resume",
        f"{ROOM}/start_from.py",
        "        check_resume(saved.config, config)\n",
        "",
        f"{TESTS}/start_from_test.py",
    ),
)
