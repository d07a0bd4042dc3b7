"""Names in ``.env`` that look like settings of NoneBot with a typing error."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from pydantic import AliasChoices, BaseModel, Field

from liteyuki_host._child.mistyped import MAX_NOTES, mistyped_settings
from liteyuki_host._child.sources import ENVIRONMENT, Sources
from liteyuki_host._child.typing_errors import one_doubled, one_missing, one_wrong, two_swapped


def notes(text: str, *, given: tuple[str, ...] = (), prod: str = "", environ: str = "") -> list[str]:
    texts = [dict(line.split("=", 1) for line in each.splitlines()) for each in (text, prod, environ)]
    files = (".env", ".env.prod", ENVIRONMENT)
    return mistyped_settings(Sources((".env", ".env.prod"), dict(zip(files, texts, strict=True)), []), given)


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("prot=8090", "PORT"),
        ("prot=abc", "PORT"),
        ("porrt=8090", "PORT"),
        ("prt=8090", "PORT"),
        ("pory=8090", "PORT"),
        ("poft=8080", "PORT"),
        ("hsot=example.org", "HOST"),
        ("hist=0.0.0.0", "HOST"),
        ("hos=localhost", "HOST"),
        ("superuser=[]", "SUPERUSERS"),
        ("superusres=[]", "SUPERUSERS"),
        ("super_users=[]", "SUPERUSERS"),
        ("nickmame=[]", "NICKNAME"),
        ("loglevel=DEBUG", "LOG_LEVEL"),
        ("log-level=DEBUG", "LOG_LEVEL"),
        ("drivver=~none", "DRIVER"),
        ("commandstart=[]", "COMMAND_START"),
        ("comand_sep=[]", "COMMAND_SEP"),
        ("enviroment=dev", "ENVIRONMENT"),
        ("session_expire_timout=60", "SESSION_EXPIRE_TIMEOUT"),
    ],
)
def test_one_typing_error_is_told(line: str, meant: str) -> None:
    written = line.partition("=")[0].upper()
    assert notes(line) == [f"{written} in .env: NoneBot has no such setting; did you mean {meant}?"]
    assert notes("", prod=line) == [f"{written} in .env.prod: NoneBot has no such setting; did you mean {meant}?"]
    assert notes("", environ=line) == [], "there are many names, and few are the bot's"


@pytest.mark.parametrize(
    "line",
    [
        *("hosts=0.0.0.0", "ports=8090", "drivers=~none", "nicknames=[]", "log_levels=DEBUG"),  # somebody's own
        *("post=hello", "part=3", "sort=1", "fort=", "cost=8080", "ghost=1", "sport=8090", "report=8090"),
        *("my_port=8090", "port2=8090", "onebot_host=127.0.0.1", "lycomm_prot=1", "p=8090", "=1", "trop=8090"),
        *("pory=80900", "pory=-8090", "pory=８０９０", "hist=hello", "api_timeouts=1", "cmd_start=[]"),
        *("port=8090", "host=::1", "superusers=[]"),
    ],
)
def test_what_may_be_a_name_of_its_own_is_not(line: str) -> None:
    assert notes(line) == []


def test_a_setting_that_is_there_was_not_mistyped() -> None:
    assert notes("prot=8090\nport=8081") == []
    assert notes("prot=8090", prod="port=8081") == []
    assert notes("prot=8090", environ="port=8081") == []
    assert notes("prot=8090", given=("port",)) == []
    assert len(notes("prot=8090", given=("host",))) == 1


@pytest.fixture
def plugin() -> Iterator[None]:
    class Nested(BaseModel):
        PROT: int = 1

    class Config(Nested):
        superuser: str = Field("", alias="superuserz")
        nick: str = Field("", validation_alias=AliasChoices("nickmame", "nicknam"))

    yield
    del Config, Nested
    gc.collect()


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("name", ["prot", "superuserz", "superuser", "nickmame", "nicknam"])
def test_a_setting_of_a_plugin_is_left_alone(name: str) -> None:
    assert notes(f"{name}=8090") == []


def test_a_file_of_something_else_does_not_flood_the_log() -> None:
    lines = "\n".join(f"superuser{letter}=1" for letter in "abcdefghijklmnop")
    assert len(notes(lines)) == MAX_NOTES


def test_the_kinds_of_typing_errors_exclude_each_other() -> None:
    for word in ("port", "log_level"):
        assert not any(error(word, word) for error in (two_swapped, one_doubled, one_missing, one_wrong))
    assert two_swapped("prot", "port")
    assert not two_swapped("trop", "port")
    assert one_doubled("poort", "port")
    assert not one_doubled("ports", "port")
    assert one_missing("ort", "port")
    assert not one_missing("or", "port")
    assert one_wrong("sort", "port")
    assert not one_wrong("sorts", "port")
