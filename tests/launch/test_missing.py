"""What is advised for a module that cannot be imported. A package of a stranger never is, where one can know."""

from __future__ import annotations

import sys
from pathlib import Path

import nonebot.adapters
import pytest

from liteyuki_host._child.missing import missing_module


@pytest.mark.parametrize(
    ("module", "package", "install"),
    [
        ("nonebot.adapters.onebot.v11", None, "nonebot-adapter-onebot"),
        ("nonebot.adapters.onebot.v11", "my-own-package", "my-own-package"),
        ("nonebot_plugin_x.sub", None, "nonebot-plugin-x"),
        # Near a name of the standard library, and packages of their own.
        *((name, None, name) for name in ("httpx", "lxml", "ujson", "jose", "typer", "tomli", "pathlib2", "urllib3")),
    ],
)
def test_what_to_install_for_a_missing_module(tmp_path: Path, module: str, package: str | None, install: str) -> None:
    words = missing_module(module, package, tmp_path)
    assert repr(module) in words
    assert f"`{sys.executable} -m pip install {install}`" in words
    assert ("is a guess" in words) is (package is None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nonebot-plugin-status", "did you mean 'nonebot_plugin_status'?"),
        ("nonebot-adapter-qq", "did you mean 'nonebot.adapters.qq'?"),
        ("nonebot-adapter-onebot-v11", "did you mean 'nonebot.adapters.onebot.v11'?"),
        ("~qq", "is not the name of a module: correct it"),
        (" ~httpx", "is not the name of a module: correct it"),
        ("a; rm -r b", "is not the name of a module: correct it"),
        ("plugins/weather.py", "is not the name of a module: correct it"),
    ],
)
def test_what_is_no_name_of_a_module_is_not_installed(tmp_path: Path, name: str, words: str) -> None:
    found = missing_module(name, folder=tmp_path)
    assert found.startswith(repr(name))
    assert found.endswith(words)
    assert "pip" not in found


OWN = ["plugins/", "helper.py", "native.abi3.so" if sys.platform != "win32" else "native.pyd", "src/inner/"]


def make(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    return folder


@pytest.mark.parametrize("module", ["plugins", "helper", "native", "inner"])
def test_a_module_of_the_project_that_is_not_on_the_path(tmp_path: Path, module: str) -> None:
    place = make(tmp_path, OWN) / ("src" if module == "inner" else "")
    words = missing_module(module, folder=tmp_path)
    assert words.startswith(f"module {module!r} is in this project, but Python does not look for modules in {place}: ")
    assert f'env = {{ PYTHONPATH = "{place.as_posix()}" }}' in words


@pytest.mark.parametrize("module", ["plugins.gone", "helper.gone", "inner.gone.deep"])
def test_a_missing_module_inside_the_project(tmp_path: Path, module: str) -> None:
    words = missing_module(module, folder=make(tmp_path, OWN))
    assert words.startswith(f"there is no module {module!r} in this project")
    assert "pip" not in words


def test_a_folder_that_only_has_the_name_of_an_installed_package(tmp_path: Path) -> None:
    assert nonebot.adapters.__name__ in sys.modules
    words = missing_module("nonebot.adapters.nothere", folder=make(tmp_path, ["nonebot/"]))
    assert "pip install nonebot-adapter-nothere" in words


@pytest.mark.parametrize(
    ("module", "meant"),
    [
        ("plugin", "plugins"),
        ("Plugins", "plugins"),
        ("plguins.weather", "plugins"),
        ("hellper", "helper"),
        ("jsno", "json"),
        ("jsonn", "json"),
        ("asynico.tasks", "asyncio"),
        ("asynci", "asyncio"),
        ("subproces", "subprocess"),
        ("Queue", "queue"),
    ],
)
def test_a_misspelled_name_is_no_package(tmp_path: Path, module: str, meant: str) -> None:
    words = missing_module(module, folder=make(tmp_path, OWN))
    assert f"did you mean {meant!r}" in words
    assert "pip" not in words


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("asyncio.nothing", "there is no module 'asyncio.nothing' in the standard library of Python 3."),
        ("_sqlite3", "module '_sqlite3' of the standard library is missing in this Python 3."),
    ],
)
def test_the_standard_library_is_no_package(tmp_path: Path, module: str, words: str) -> None:
    assert missing_module(module, folder=tmp_path).startswith(words)
    assert "pip" not in missing_module(module, folder=tmp_path)


def test_a_module_that_python_has_dropped(tmp_path: Path) -> None:
    if sys.version_info < (3, 12):
        assert "standard library" in missing_module("asyncore.sub", folder=tmp_path)
        return
    words = missing_module("asyncore.sub", folder=tmp_path)
    assert "has no module 'asyncore' any more" in words
    assert "pip" not in words


def test_a_project_folder_that_is_gone(tmp_path: Path) -> None:
    assert "pip install gone-x" in missing_module("gone_x", folder=tmp_path / "nowhere")
