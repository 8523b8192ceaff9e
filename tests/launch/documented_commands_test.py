"""The commands of README, docs and recipes exist: each line is parsed as the program would."""

from __future__ import annotations

import ast
import re
import shlex

import pytest

from launch import system_commands, trained_model
from launch.cli import COMMANDS, build_parser, split_overrides
from tests.conftest import REPOSITORY
from training.registry import systems_with

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
RECIPES = sorted((REPOSITORY / "configs").rglob("*.py"))


def command_lines(text: str) -> list[str]:
    """`podvision ...` at the start of a line or in backticks, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^ *(?:[A-Z_]+=\S+ )*(podvision +[^`\n]+)$", text, re.MULTILINE)
    return lines + re.findall(r"`(podvision +[^`\n]+)`", text)


def documented() -> list[tuple[str, str]]:
    """(file, command line) of every page and of every recipe's docstring."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in PAGES}
    for path in RECIPES:
        module = ast.parse(path.read_text(encoding="utf-8"))
        texts[f"{path.parent.name}/{path.name}"] = ast.get_docstring(module) or ""
    return [(name, line) for name, text in texts.items() for line in command_lines(text)]


def arguments(line: str) -> list[str]:
    """The words after `podvision`; of `[--flag A|B]` the flag with its first value is kept."""
    line = line.replace("[", "").replace("]", "")
    line = line.replace("N|latest|best", "latest").replace("window|resize", "window")
    words = shlex.split(line, comments=True)
    return ["7" if word == "N" else word for word in words[1:]]


LINES = documented()


def test_the_commands_of_every_page_are_found():
    assert len(LINES) > 40
    named = {arguments(line)[0] for _, line in LINES}
    assert named >= set(COMMANDS), "every command is documented"


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{p}: {text[:60]}" for p, text in LINES])
def test_a_documented_command_line_parses(page, line):
    words = arguments(line)
    assert words[0] in COMMANDS or words == ["--help"], f"{page}: {line}"
    if len(words) == 1 or (words[0] == "prepare" and len(words) == 2):
        return  # The command is only named.
    if words[0] in ("export", "predict", "view"):
        assert_parses_for_a_system(words, f"{page}: {line}")
        return
    try:
        args, _ = split_overrides(build_parser(words[0], words[1:]), words[1:])
    except SystemExit as error:
        raise AssertionError(f"{page}: {line}") from error
    recipe = getattr(args, "config", None)
    if recipe not in (None, "..."):
        assert (REPOSITORY / recipe.partition(":")[0]).is_file(), f"{page}: {line}"


def assert_parses_for_a_system(words: list[str], where: str) -> None:
    """The line fits runs of at least one system; which, a line does not say."""
    for system in systems_with(words[0]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(system_commands, "saved_config", lambda workdir, s=system: {"system": s})
            patch.setattr(trained_model, "system_of_folder", lambda folder, s=system: s)
            try:
                split_overrides(build_parser(words[0], words[1:]), words[1:])
                return
            except SystemExit:
                continue
    raise AssertionError(where)


def test_the_table_of_the_readme_names_every_command():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = " ".join(re.findall(r"^\| (`podvision [^|]+) \|", readme, re.MULTILINE))
    named = {name.removeprefix("podvision ") for name in re.findall(r"`([^`]+)`", rows)}
    assert named == set(COMMANDS)


def test_make_targets_and_linked_files_exist():
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)) <= targets
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"
        for script in re.findall(r"python (benchmarks/\w+\.py)", text):
            assert (REPOSITORY / script).is_file(), f"{path.name} names {script}"
