"""The lycomm that an interpreter would load, compared with ours: by real interpreters, with copies of the package."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest

import liteyuki_host
from liteyuki_host._version import PROTOCOL_VERSION, __version__
from liteyuki_host.comm.errors import ProcessFailed
from liteyuki_host.comm.shortage import LATER, Outlook, outlook, remedy
from liteyuki_host.supervisor import installation
from liteyuki_host.supervisor.installation import BeingUpdated, HostInstallation, OtherVersion

PYTHON = Path(sys.executable)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy that is found before the installed one."""
    ours = Path(liteyuki_host.__file__).parent
    return Path(shutil.copytree(ours, tmp_path / "site" / "liteyuki_host", ignore=shutil.ignore_patterns("*.pyc")))


def compare(package: Path, python: Path = PYTHON) -> None:
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    HostInstallation().compare(python, package.parent, environment)


def test_the_same_is_the_same(package: Path) -> None:
    compare(package)
    HostInstallation().compare(PYTHON, package.parent, os.environ)  # ours itself


def test_another_version_names_the_cure(package: Path) -> None:
    (package / "_version.py").write_text(f'__version__ = "99.1"\nPROTOCOL_VERSION = {PROTOCOL_VERSION}\n')
    with pytest.raises(OtherVersion) as failed:
        compare(package)
    assert str(failed.value) == (
        f"{PYTHON} has lycomm 99.1 now, this host runs lycomm {__version__}: restart the host, so that both load the "
        "same one (stop it, then run `lycomm run` again)"
    )
    assert outlook(failed.value) is Outlook.FINAL


@pytest.mark.parametrize(("protocol", "words"), [("PROTOCOL_VERSION = 99", "protocol 99"), ("", "protocol 0")])
def test_another_protocol_of_the_same_version_counts_too(package: Path, protocol: str, words: str) -> None:
    (package / "_version.py").write_text(f'__version__ = "{__version__}"\n{protocol}\n')
    with pytest.raises(OtherVersion, match=f"{words} now, .*, protocol {PROTOCOL_VERSION}: restart the host"):
        compare(package)


@pytest.mark.skipif(sys.platform == "win32", reason="a script as interpreter")
def test_an_environment_of_the_bots_own_is_to_be_brought_in_line(package: Path, tmp_path: Path) -> None:
    (package / "_version.py").write_text(f'__version__ = "99.1"\nPROTOCOL_VERSION = {PROTOCOL_VERSION}\n')
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    python.chmod(0o755)
    with pytest.raises(OtherVersion, match=rf"run `{python} -m pip install nonebot-plugin-lycomm=={__version__}`"):
        compare(package, python)


def cut_short(package: Path) -> None:
    (package / "_version.py").write_text('__version__ = "99')


def without_its_version(package: Path) -> None:
    (package / "_version.py").unlink()


def without_a_module(package: Path) -> None:
    (package / "comm" / "link" / "link.py").unlink()


def without_anything(package: Path) -> None:
    shutil.rmtree(package)
    package.mkdir()
    (package / "__init__.py").touch()


@pytest.mark.parametrize("damage", [cut_short, without_its_version, without_a_module, without_anything])
def test_half_an_update_passes(package: Path, damage: object) -> None:
    damage(package)  # type: ignore[operator]
    with pytest.raises(BeingUpdated, match=r"at the moment .*; is it being updated\?") as failed:
        compare(package)
    assert outlook(failed.value) is Outlook.SHORTAGE


def test_an_interpreter_that_is_away_for_a_moment_passes(package: Path) -> None:
    with pytest.raises(BeingUpdated, match=os.strerror(errno.ENOENT)) as failed:
        compare(package, package / "python")
    assert outlook(failed.value) is Outlook.SHORTAGE


@pytest.mark.skipif(sys.platform == "win32", reason="a script as interpreter")
def test_an_interpreter_that_does_not_answer_is_not_waited_for(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "PROBE_SECONDS", 0.2)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    with pytest.raises(BeingUpdated, match=r"it did not answer in 0\.2 s") as failed:
        compare(package, python)
    assert outlook(failed.value) is Outlook.SHORTAGE


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN, errno.ENOMEM])
def test_a_shortage_of_the_host_is_called_what_it_is(
    number: int, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(installation.subprocess, "Popen", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as failed:
        compare(package)
    assert remedy(failed.value) not in (None, LATER)


@pytest.mark.parametrize(
    ("number", "words", "prospect"),
    [
        (errno.EPERM, "the system forbids it", Outlook.FINAL),
        (errno.EACCES, "the system forbids it", Outlook.FINAL),
        (errno.ENOEXEC, "correct python in", Outlook.FINAL),
        (errno.EFAULT, "correct python in", Outlook.UNCLEAR),
    ],
)
def test_a_start_that_the_system_refuses_says_nothing_of_lycomm(
    number: int, words: str, prospect: Outlook, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(installation.subprocess, "Popen", refuse)
    with pytest.raises(ProcessFailed, match=rf"cannot be started \({os.strerror(number)}\): .*{words}") as failed:
        compare(package)
    assert "lycomm cannot be loaded" not in str(failed.value)
    assert not isinstance(failed.value, BeingUpdated)
    assert outlook(failed.value) is prospect


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_an_interpreter_that_is_not_executable(package: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    with pytest.raises(ProcessFailed, match=rf"{python} cannot be started .*: make it executable") as failed:
        compare(package, python)
    assert outlook(failed.value) is Outlook.FINAL


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_a_program_that_the_system_cannot_run(package: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_bytes(b"\x7fELF nothing")
    python.chmod(0o755)
    with pytest.raises(ProcessFailed, match=rf"{python} cannot be started .*: correct python in") as failed:
        compare(package, python)
    assert outlook(failed.value) is Outlook.FINAL


def test_what_a_site_prints_does_not_disturb(package: Path) -> None:
    (package.parent / "sitecustomize.py").write_text("print('welcome\\nto this machine')\n")
    compare(package)
