"""What went wrong in the user's project, in one line that names the culprit and the remedy."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

from liteyuki_host._child.missing import missing_module
from liteyuki_host.wording import short_repr

MAX_WORDS = 500
"""Characters of one line. Validation errors repeat whole configurations."""


NEEDS_A_TERMINAL = "if it reads the keyboard, set terminal = true for this process in [tool.lycomm.processes]"


class CannotRun(Exception):
    """The project cannot be run as it is; the text is that line."""


def explain(exc: BaseException, folder: Path | None = None) -> str:
    """Put an error into one line of at most ``MAX_WORDS`` characters.

    Args:
        folder: the project's, by default the current one; of the traceback's places the innermost one in here is named.
    """
    folder = folder or Path.cwd()
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        return missing_module(exc.name, folder=folder)
    if isinstance(exc, SyntaxError):
        return f"{exc.filename} line {exc.lineno}: {exc.msg}"
    words = _one_line(_settings_words(exc) or _with_type(exc))
    place = _place(exc, folder)
    if isinstance(exc, EOFError) or type(exc).__module__ in ("termios", "_curses"):
        words += f": {NEEDS_A_TERMINAL}"
    return f"{words} ({place})" if place else words


def locate(exc: BaseException, folder: Path, otherwise: str | None = None) -> str:
    """The same as one line that begins with the place: ``plugins/weather.py line 12: SyntaxError: invalid syntax``.

    Args:
        folder: the project's; the place is the innermost one in here.
        otherwise: what the line begins with when no place is.
    """
    place = _place(exc, folder)
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        words = missing_module(exc.name, folder=folder)
    elif isinstance(exc, SyntaxError):
        words = f"{type(exc).__name__}: {exc.msg}"
        inside = _relative(exc.filename, folder)
        if inside is not None:
            place = f"{inside} line {exc.lineno}"
        elif exc.filename:
            words += f" ({exc.filename} line {exc.lineno})"
    else:
        words = _settings_words(exc) or _with_type(exc)
    return _one_line(": ".join(filter(None, [place or otherwise, words])))


def _with_type(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__


def _settings_words(exc: BaseException) -> str | None:
    """For a plugin whose configuration is wrong: which setting, where it stands, and what is expected. None for any
    other error."""
    if type(exc).__module__ == "nonebot.config" and type(exc).__name__ == "SettingsError":
        return _not_json(exc)
    errors = getattr(exc, "errors", None)
    if type(exc).__name__ != "ValidationError" or not type(exc).__module__.startswith("pydantic") or errors is None:
        return None
    from liteyuki_host._child.sources import Sources
    from liteyuki_host._child.value_words import wrong_values

    sources = Sources.read()
    wrong = [("__".join(names).lower(), words) for names, words in wrong_values(errors(include_url=False))]
    asked = any(frame.name == "get_plugin_config" for frame in traceback.extract_tb(exc.__traceback__))
    if not asked and not sources.have_all([name for name, _ in wrong]):
        return None  # data of something else
    lines = [
        f"{sources.place(name)} is missing: add it to .env"
        if words == "is missing"
        else f"{sources.place(name)}: {words}"
        for name, words in wrong
    ]
    return "; ".join(lines)


def _not_json(exc: BaseException) -> str | None:
    """About a setting of a plugin or an adapter that NoneBot could not parse; its words name the field of a class, and
    in ``.env`` may stand the field's alias."""
    from liteyuki_host._child.sources import Sources

    quoted = re.search(r'"(\w+)"', str(exc))
    if quoted is None:
        return None
    sources, name = Sources.read(), quoted[1].lower()
    asked = [frame for frame, _ in traceback.walk_tb(exc.__traceback__) if frame.f_code.co_name == "get_plugin_config"]
    fields = getattr(asked[-1].f_locals.get("config"), "model_fields", {}) if asked else {}
    alias = getattr(fields.get(name), "alias", None)
    if isinstance(alias, str) and sources.have_all([alias.lower()]):
        name = alias.lower()
    return (
        f'{sources.place(name)}: {short_repr(sources.value(name))} is not JSON; write it like ["a", "b"] or {{"a": 1}}'
    )


def is_final(exc: BaseException) -> bool:
    """Whether each start fails in the same way until somebody changes something: what the bot imports, its syntax, the
    settings that its plugins ask for, two plugins of one name."""
    if isinstance(exc, (ImportError, SyntaxError)):
        return True
    if isinstance(exc, RuntimeError) and str(exc).startswith("Plugin already exists: "):
        return True
    return _settings_words(exc) is not None


def _one_line(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= MAX_WORDS else f"{line[: MAX_WORDS - 4]} ..."


def show_traceback(exc: BaseException, script: Path) -> None:
    """As Python shows it for ``python bot.py``: without the frames that are ours."""
    tb = exc.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename != str(script):
        tb = tb.tb_next
    traceback.print_exception(type(exc), exc, tb)


def _place(exc: BaseException, folder: Path) -> str | None:
    for frame in reversed(traceback.extract_tb(exc.__traceback__)):
        inside = _relative(frame.filename, folder)
        if inside is not None:
            return f"{inside} line {frame.lineno}"
    return None


def place_inside(file: str, line: int, folder: Path) -> str | None:
    """``plugins/weather.py line 12``; None: the file is none of the project's own."""
    inside = _relative(file, folder)
    return None if inside is None else f"{inside} line {line}"


def _relative(file: str | None, folder: Path) -> Path | None:
    """None: it is no file of the project's own."""
    if not file or file.startswith("<"):
        return None
    path, folder = Path(os.path.realpath(file)), Path(os.path.realpath(folder))  # the project may be a link
    if folder in path.parents and "site-packages" not in path.parts:
        return path.relative_to(folder)
    return None
