"""Names in ``.env`` that look like settings of NoneBot with a typing error, such as ``PROT=8090``.

NoneBot takes every name, since it may be a plugin's. So nobody complains about this one, and the bot opens port 8080.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator

from nonebot.config import Config
from pydantic import BaseModel

from liteyuki_host._child.sources import ENVIRONMENT, Sources
from liteyuki_host._child.typing_errors import one_doubled, one_missing, one_wrong, two_swapped
from liteyuki_host.wording import one_line

SURE_LENGTH = 6
"""Letters of a setting's name from which on one wrong or missing letter is taken for a typing error whatever the value
is. From ``HOST`` or ``PORT`` it leads to other words too often: ``COST``, ``POST``, ``PART``."""

MAX_NOTES = 10


def mistyped_settings(sources: Sources, given: Collection[str] = ()) -> list[str]:
    """One line for each name in a dotenv file that is one typing error away from a setting of NoneBot which is not set.

    A name is left alone if anything that has been imported declares a setting or a field of that name. Call it when
    the plugins are loaded, or it cannot be known which names are theirs.

    Args:
        given: settings that the project passes to ``nonebot.init()``.
    """
    known = {*Config.model_fields, "environment"}
    unset = {name for name in known if name not in given and not sources.have_all([name])}
    notes = []
    for file, variables in sources.texts.items():
        for written, value in variables.items() if file != ENVIRONMENT else ():
            meant = next((name for name in sorted(unset) if _is_meant(written, value, name)), None)
            if meant is not None and not (written in known or written.startswith("lycomm_") or _is_a_field(written)):
                where = f"{one_line(written, 100).upper()} in {one_line(file, 100)}"
                notes.append(f"{where}: NoneBot has no such setting; did you mean {meant.upper()}?")
    return notes[:MAX_NOTES]


def _is_meant(written: str, value: str, name: str) -> bool:
    if two_swapped(written, name) or one_doubled(written, name) or _without_lines(written) == _without_lines(name):
        return True
    if not (one_wrong(written, name) or one_missing(written, name)):
        return False
    return len(name) >= SURE_LENGTH or _fits(value, name)


def _without_lines(name: str) -> str:
    return name.replace("_", "").replace("-", "")


def _fits(value: str, name: str) -> bool:
    """Whether the value is one that hardly anything but the setting of this short name has."""
    if name == "port":
        return value.isdecimal() and value.isascii() and (1024 <= int(value[:10]) < 65536 or value in ("80", "443"))
    if name == "host":
        return value == "localhost" or _is_address(value)
    return False


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_a_field(name: str) -> bool:
    """Whether some pydantic model has a field that is read from *name*: the settings of plugins and adapters are such
    models."""
    return any(name == field.lower() for model in _models(BaseModel) for field in _fields_of(model))


def _models(base: type) -> Iterator[type]:
    seen, ahead = {base}, [base]
    while ahead:
        model = ahead.pop()
        yield model
        below: list[type] = type.__subclasses__(model)
        ahead += [each for each in below if each not in seen]
        seen.update(below)


def _fields_of(model: type) -> Iterator[str]:
    own = vars(model)
    fields = own.get("__pydantic_fields__", own.get("model_fields"))  # from pydantic 2.10 on, and before
    for name, field in fields.items() if isinstance(fields, dict) else ():
        yield name
        for alias in (field.alias, *getattr(field.validation_alias, "choices", [field.validation_alias])):
            if isinstance(alias, str):
                yield alias
