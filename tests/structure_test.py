"""The house: dependencies point one way, files stay small, the core names no system."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from training.registry import SYSTEMS, installed
from training.task import Task

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("training", "launch", "configs", *installed())


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of every module of the program."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports of the program, also inside functions or for type checkers only."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = names & modules().keys()
            found |= inner or {node.module}
    return frozenset(found & modules().keys() - {module})


def circles(graph: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Groups of nodes that lead to each other (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[list[str]]:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in number:
                yield from visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                yield sorted(group)

    for node in graph:
        if node not in number:
            yield from visit(node)


def test_no_modules_import_each_other():
    assert not list(circles({name: imports(name) for name in modules()}))


def test_circles_are_found_with_all_their_members():
    graph = {"a": "b", "b": "c", "c": "a", "d": "ae", "e": "", "f": "g", "g": "f"}
    assert list(circles(graph)) == [["a", "b", "c"], ["f", "g"]]


def test_dependencies_point_from_launch_to_systems_to_training():
    for module in modules():
        package = module.split(".")[0]
        others = {name.split(".")[0] for name in imports(module)} - {package}
        if package == "training":
            assert not others, module
        elif package in SYSTEMS:
            assert others <= {"training"}, module
        elif package == "launch":
            assert others <= {"training", "configs"}, f"{module} names a system"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_longer_than_400_lines(package):
    long = {
        name: lines
        for name, path in modules().items()
        if name.split(".")[0] == package
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def test_the_core_names_no_system_but_in_its_list():
    naming = re.compile(r"splat|jepa|rtdetr|hand_object|psnr|rankme", re.IGNORECASE)
    lines = [
        f"{path.relative_to(ROOT)}: {line}"
        for name, path in modules().items()
        if name.startswith("training")
        for line in path.read_text(encoding="utf-8").splitlines()
        if naming.search(line) and not line.startswith("SYSTEMS = ")
    ]
    assert not lines


def test_a_task_has_few_members():
    declared = {name for name in vars(Task) if not name.startswith("_")}
    assert len(declared | set(Task.__annotations__)) <= 14


def test_every_module_says_what_it_owns():
    silent = [
        name
        for name, path in modules().items()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent


def test_no_module_has_the_name_of_an_optional_package():
    """Where the package is not installed, a type checker takes our module for it."""
    extras = (ROOT / "setup.cfg").read_text(encoding="utf-8").partition("extras_require]")[2]
    packages = {name.replace("-", "_") for name in re.findall(r"([a-z][a-z0-9_-]+)[>=]=", extras)}
    assert {"onnx", "torch"} <= packages
    assert not packages & {module.rpartition(".")[2] for module in modules()}
