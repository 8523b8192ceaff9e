"""Files that are there whole or not at all, whenever the program is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from training.errors import InputError


def replace_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file under another name and renames it: a reader sees the old or the new."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file that this program wrote.

    Raises:
      InputError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error}); restore it, or delete it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} does not hold a JSON object; restore it, or delete it")
    return content
