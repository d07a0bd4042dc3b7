"""What NoneBot itself would refuse of a project's configuration: values in ``.env`` and the environment, the driver.

``nonebot.init()`` stops at the first mistake, and a missing driver or a JSON error in ``.env`` is a traceback of many
lines. Here each mistake is one line that names the variable and where it stands.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from nonebot.config import BaseSettings, Config, SettingsError
from nonebot.drivers import ASGIMixin
from nonebot.utils import resolve_dot_notation
from pydantic import ValidationError, create_model

from liteyuki_host._child.doubtful import doubtful_values, wrong_log_level
from liteyuki_host._child.missing import missing_module
from liteyuki_host._child.mistyped import mistyped_settings
from liteyuki_host._child.sources import Sources
from liteyuki_host._child.trouble import CannotRun, explain
from liteyuki_host._child.value_words import wrong_values
from liteyuki_host.comm.command import shell_line
from liteyuki_host.comm.shortage import is_shortage
from liteyuki_host.wording import one_line, short_repr, why

DRIVERS = ("fastapi", "quart", "httpx", "websockets", "aiohttp", "none")
"""Those that come with NoneBot."""

LOOKED_AT = ("driver", "host", "port", "log_level", "api_timeout", "session_expire_timeout")
"""Settings whose values are judged here, besides what NoneBot itself says of each."""

PREFIX = "nonebot.drivers."
"""What ``~`` stands for."""


@dataclass
class Examined:
    """What was found in one configuration."""

    problems: list[str] = field(default_factory=list)
    """With these the bot cannot start."""
    notes: list[str] = field(default_factory=list)
    """With these it can."""
    replaced: list[str] = field(default_factory=list)
    """With these it can, with another value than was written; unless the bot itself makes the value a good one."""
    mistyped: list[str] = field(default_factory=list)
    """Names that look like typing errors; unless a plugin has such a setting."""
    listens: tuple[str, int] | None = None
    """Host and port that the driver's server would open; None: it has no server, or that cannot be said."""


def examine_configuration(given: Collection[str] = ()) -> Examined:
    """Read what ``nonebot.init()`` would read in the current folder, and load the driver.

    Args:
        given: settings that the project passes to ``init()``, which overrule what stands anywhere else.
    """
    found = Examined()
    sources = Sources.read()
    found.notes += sources.left_out
    try:
        config = Config(_env_file=sources.files)  # as nonebot.init() does
    except Exception as exc:
        found.problems += dict.fromkeys(_wrong_values(sources, given))
        if not any(_wrong_values(sources, ())):  # nothing that a setting by itself would show
            found.problems.append(one_line(f"the configuration in .env cannot be read: {explain(exc)}"))
        values = _values_that_can_be_read(sources)
    else:
        values = {name: getattr(config, name) for name in LOOKED_AT}
    if "driver" not in given and isinstance(values.get("driver"), str):
        problems, has_server = _examine_driver(values["driver"], sources.place("driver"))
        found.problems += problems
        if has_server and values.keys() >= {"host", "port"}:
            found.listens = str(values["host"]), int(values["port"])
    found.notes += doubtful_values(values, sources)
    level = wrong_log_level(values.get("log_level"), sources)
    if level is not None:
        found.replaced.append(one_line(level))
    found.mistyped = mistyped_settings(sources, given)
    return found


def explaining(init: Callable[..., None]) -> Callable[..., None]:
    """``nonebot.init``, whose failure is a CannotRun where the configuration is to blame. No new start cures that."""

    @wraps(init)
    def init_or_explain(*args: Any, **kwargs: Any) -> None:
        try:
            init(*args, **kwargs)
        except Exception as exc:
            if is_shortage(exc) or kwargs.get("_env_file"):
                raise
            problems = examine_configuration(kwargs).problems
            if not problems:
                raise
            raise CannotRun("; ".join(problems)) from exc

    return init_or_explain


def _wrong_values(sources: Sources, given: Collection[str]) -> Iterator[str]:
    """Each setting by itself, since NoneBot stops at the first that is wrong."""
    for name in Config.model_fields:
        yield from _wrong_value(name, sources, overruled=name in given)


def _wrong_value(name: str, sources: Sources, *, overruled: bool) -> Iterator[str]:
    place = sources.place(name)
    try:
        _alone(name)(_env_file=sources.files)
    except ValidationError as errors:
        for _, words in () if overruled else wrong_values(errors.errors(include_url=False)):
            yield one_line(f"{place}: {words}")
    except SettingsError:  # while it was parsed, which is done to a value that is overruled too
        example = '["123456789"]' if name == "superusers" else '["a", "b"]'
        yield one_line(
            f"{place}: {short_repr(sources.value(name))} is not JSON; write it like {name.upper()}={example}"
        )
    except Exception as exc:
        yield one_line(f"the configuration in .env cannot be read: {explain(exc)}")


def _alone(name: str) -> Callable[..., BaseSettings]:
    field_info = Config.model_fields[name]
    fields: dict[str, Any] = {name: (field_info.annotation, field_info)}
    return create_model("Alone", __base__=BaseSettings, **fields)


def _values_that_can_be_read(sources: Sources) -> dict[str, Any]:
    values = {}
    for name in LOOKED_AT:
        try:
            values[name] = getattr(_alone(name)(_env_file=sources.files), name)
        except Exception:  # has been told
            pass
    return values


def _examine_driver(driver: str, place: str) -> tuple[list[str], bool]:
    """What is wrong with it, and whether it has a server."""
    problems: list[str] = []
    parts: list[Any] = []
    for index, part in enumerate(driver.split("+")):
        kind = "Mixin" if index else "Driver"
        try:
            parts.append(resolve_dot_notation(part, kind, default_prefix=PREFIX))
        except Exception as exc:
            problems.append(one_line(f"{place}: {_wrong_driver(part, kind, exc)}"))
    return problems, any(isinstance(part, type) and issubclass(part, ASGIMixin) for part in parts)


def _wrong_driver(part: str, kind: str, exc: Exception) -> str:
    shown = one_line(part, 100)
    name = part.partition(":")[0].removeprefix("~")
    if name in DRIVERS and isinstance(exc, ImportError):
        install = shell_line(sys.executable, "-m", "pip", "install", f"nonebot2[{name}]")
        return f"driver {shown} needs what is not installed: run `{install}`"
    if name in DRIVERS and isinstance(exc, AttributeError):
        if kind == "Mixin":
            return f"driver {shown} cannot be combined with another one"
        return f"there is no such class in driver {shown}"
    if part.startswith("~") and isinstance(exc, ModuleNotFoundError | TypeError | ValueError):
        close = difflib.get_close_matches(name.lower(), DRIVERS, n=1)
        guess = f"; did you mean ~{close[0]}?" if close else f"; there are ~{', ~'.join(DRIVERS)}"
        return f"there is no driver {shown}{guess}"
    if isinstance(exc, ModuleNotFoundError) and exc.name and not _exists(exc.name):
        return f"driver {shown}: {missing_module(exc.name)}"
    return f"driver {shown} cannot be loaded: {type(exc).__name__}: {why(exc)}"


def _exists(module: str) -> bool:
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True
