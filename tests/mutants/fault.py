"""A single fault: one exact piece of a source file, and what stands in its place."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path


class ListError(Exception):
    """The list of faults does not fit the sources any more."""


@dataclass(frozen=True)
class Fault:
    """What is planted, and the fast tests that should notice it.

    Attributes:
      name: says the fault in a few words; unique.
      file: path of the source file from the root of the repository.
      text: occurs exactly once in the file.
      replacement: what is put there; the file must still be valid Python.
      tests: test files, or `file::function`, separated by spaces.
      survives: why it is right that no test notices it; empty for all others.
    """

    name: str
    file: str
    text: str
    replacement: str
    tests: str
    survives: str = ""

    def planted(self, root: Path) -> str:
        """The file's source with the fault in it.

        Raises:
          ListError: there is no such file, the text is not there exactly once, or the result is
            not Python.
        """
        path = root / self.file
        if not path.is_file():
            raise ListError(f"{self.name}: there is no {self.file}; name the file of today")
        source = path.read_text(encoding="utf-8")
        found = source.count(self.text)
        if found != 1 or self.text == self.replacement:
            raise ListError(
                f"{self.name}: {self.text!r} occurs {found} times in {self.file}, not once; "
                "give a text that is there once, and another replacement"
            )
        changed = source.replace(self.text, self.replacement)
        try:
            ast.parse(changed)
        except SyntaxError as error:
            raise ListError(
                f"{self.name}: the replacement is not valid Python ({error})"
            ) from error
        return changed

    def check_tests(self, root: Path) -> None:
        """Raises ListError where a named test is not there."""
        for test in self.tests.split():
            file, _, function = test.partition("::")
            path = root / file
            if not path.is_file():
                raise ListError(f"{self.name}: there is no {file}; name the tests of today")
            if function and not re.search(rf"def {function}\(", path.read_text(encoding="utf-8")):
                raise ListError(f"{self.name}: {file} has no {function}; name the tests of today")
        if not self.tests.split():
            raise ListError(f"{self.name}: no test is named")
