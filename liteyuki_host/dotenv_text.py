"""The text of one dotenv file: its variables as python-dotenv reads them, within bounds.

python-dotenv needs time with the square of the number of lines, of ``${`` and of blanks in a row, and NoneBot reads
each file for itself and again for each plugin that has settings. A file that would keep a bot busy for minutes is
refused before anything parses it.
"""

from __future__ import annotations

import io
import re
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import Binding, parse_stream
from dotenv.variables import parse_variables

from liteyuki_host.paths import FileProblem
from liteyuki_host.wording import one_line, shown

MAX_CHARACTERS = 256 * 1024
"""Of a file. Twice what Linux allows for one variable of the environment; a usual .env has less than 10 KiB."""

MAX_LINES = 2000
"""Of a file. One reading of as many takes 0.15 s, of 20,000 more than 10 s."""

MAX_BLANKS = 1000
"""In a row. python-dotenv looks for a comment from each of them on: 0.01 s for as many, a minute for 100,000."""

MAX_SEARCHED = 10_000_000
"""Characters of one value times the ``${`` in it. As much takes half a second, if none of them is closed."""

MAX_FILLED_IN = 1024 * 1024
"""Characters of all values of a file with ``${NAME}`` filled in. Thirty lines that double a value reach 1 GiB."""

_BLANKS = re.compile(rf"[^\S\r\n]{{{MAX_BLANKS + 1}}}")


def variables(text: str, path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """``dotenv_values``, but ``${NAME}`` is looked up in *environ*, and a line of ours is never dropped.

    Args:
        path: the file's, for the error.

    Raises:
        FileProblem: the text is beyond a bound, or a line with ``LYCOMM_`` is none that can be read.
    """
    text = text.removeprefix("\ufeff")  # python-dotenv does so itself from 1.2 on
    _check_size(text, path)
    values: dict[str, str] = {}
    known = ChainMap(values, dict(environ))
    room = MAX_FILLED_IN
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is not None:
            values[binding.key] = _filled_in(binding, known, path, room)
            room -= len(values[binding.key])
        elif binding.error and "lycomm_" in binding.original.string.lower():
            raise FileProblem(f"{shown(path)} line {binding.original.line}: not of the form LYCOMM_NAME=value")
    return values


def _check_size(text: str, path: Path) -> None:
    if len(text) > MAX_CHARACTERS:
        raise FileProblem(
            f"{shown(path)} has more than {MAX_CHARACTERS // 1024} KiB: keep only settings in it, and put long texts "
            "into files of their own"
        )
    if len(text.splitlines()) > MAX_LINES:
        raise FileProblem(
            f"{shown(path)} has more than {MAX_LINES} lines, which NoneBot would take too long to read: keep only "
            "settings in it"
        )
    blanks = _BLANKS.search(text)
    if blanks is not None:
        line = len(text[: blanks.start()].splitlines()) or 1
        raise FileProblem(
            f"{shown(path)} line {line} has more than {MAX_BLANKS} blanks in a row, which NoneBot would take too long "
            "to read: remove them"
        )


def _filled_in(binding: Binding, known: Mapping[str, str], path: Path, room: int) -> str:
    """The value of *binding* with each ``${NAME}`` filled in, at most *room* characters."""
    value = binding.value or ""
    place = f"{shown(path)} line {_line_of(binding)}: {one_line(binding.key or '', 100)}"
    if value.count("${") * len(value) > MAX_SEARCHED:
        raise FileProblem(f"{place} has too many ${{...}} in it, which NoneBot would take too long to read: shorten it")
    parts: list[str] = []
    for atom in parse_variables(value):
        part = atom.resolve(known)
        room -= len(part)
        if room < 0:
            raise FileProblem(
                f"{place} becomes too long when its ${{...}} are filled in (the values of this file are together more "
                f"than {MAX_FILLED_IN // 1024**2} MiB then): shorten it"
            )
        parts.append(part)
    return "".join(parts)


def _line_of(binding: Binding) -> int:
    """Where the variable stands; a binding begins with the empty lines above it."""
    original = binding.original.string
    above = original[: len(original) - len(original.lstrip())]
    return binding.original.line + len(above.splitlines())
