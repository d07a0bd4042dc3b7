"""Where NoneBot looks for its settings, and in which of these places a setting stands."""

from __future__ import annotations

import io
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream

from liteyuki_host.paths import read_text
from liteyuki_host.wording import one_line

ENVIRONMENT = "the environment"
"""Stands for a file's name."""


@dataclass(frozen=True)
class Sources:
    """The dotenv files in the current folder, and the environment."""

    files: tuple[str, str]
    texts: dict[str, dict[str, str]]
    """File name, or ``the environment``, to its variables by lower-case name; the weakest first."""
    left_out: list[str]
    """Lines that are in none of them because nobody can read them."""

    @classmethod
    def read(cls) -> Sources:
        environ = {key.lower(): value for key, value in os.environ.items()}
        left_out: list[str] = []
        first = _variables(".env", left_out)
        last = f".env.{environ.get('environment') or first.get('environment') or 'prod'}"
        texts = {".env": first, last: _variables(last, left_out), ENVIRONMENT: environ}
        return cls((".env", last), texts, left_out[:10])

    def place(self, setting: str) -> str:
        """The variable and where it stands, for the beginning of a line."""
        places = [name for name, variables in self.texts.items() if setting in variables]
        return f"{setting.upper()} in {one_line(places[-1], 100)}" if places else setting.upper()

    def value(self, setting: str) -> str:
        return next((texts[setting] for texts in reversed(self.texts.values()) if setting in texts), "")

    def have_all(self, settings: Collection[str]) -> bool:
        return all(any(setting in variables for variables in self.texts.values()) for setting in settings)


def _variables(name: str, left_out: list[str]) -> dict[str, str]:
    """Those of one dotenv file, by lower-case name. What nobody can read is told in *left_out*."""
    found: dict[str, str] = {}
    if os.path.isdir(name):
        left_out.append(f"{one_line(name, 100)} is a folder: NoneBot reads no settings from it")
    for binding in _bindings(name):
        if binding.key is not None:
            found[binding.key.lower()] = binding.value or ""
        elif binding.error:
            where = f"line {binding.original.line} of {one_line(name, 100)}"
            left_out.append(f"{where} is not of the form NAME=value: NoneBot leaves it out")
    return found


def _bindings(name: str) -> list[Any]:
    try:
        return list(parse_stream(io.StringIO(read_text(Path(name)).removeprefix("\ufeff"))))
    except ValueError:  # mostly: it is not there
        return []
