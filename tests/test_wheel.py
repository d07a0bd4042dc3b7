"""What is in the wheel: the page that PyPI shows, the commands, and what they read."""

from __future__ import annotations

import email.parser
import email.policy
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from email.message import EmailMessage
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOB = "https://github.com/lycomm/nonebot-plugin-lycomm/blob/main/"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    call = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*call, "--wheel-dir", str(folder), str(ROOT)], capture_output=True, encoding="utf-8", timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        yield opened


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # pip fetches the build backend


def metadata_of(wheel: zipfile.ZipFile) -> EmailMessage:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    message = email.parser.BytesParser(policy=email.policy.default).parsebytes(wheel.read(name))
    assert isinstance(message, EmailMessage)
    return message


def test_every_link_of_the_long_description_works_on_pypi(wheel: zipfile.ZipFile) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = str(metadata.get_payload(decode=True), "utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:href|src)="([^"]+)"', text)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(links) == len(re.findall(r"\]\([^)\s]+\)", readme)) > 15
    for link in links:
        assert link.startswith(("https://", "#")), link
        if link.startswith(BLOB):
            assert (ROOT / link.removeprefix(BLOB).partition("#")[0]).exists(), link
    assert [link for link in links if link.startswith(BLOB)], "those that are relative in the repository"


def test_the_file_of_all_settings_is_in_it(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("liteyuki_host/env.example") == (ROOT / ".env.example").read_bytes()


def test_it_has_the_two_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"liteyuki_host", "nonebot_plugin_lycomm"}


def test_every_entry_point_leads_to_a_module_in_it(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    points = ConfigParser()
    points.read_string(wheel.read(name).decode())
    assert set(points) - {"DEFAULT"} == {"console_scripts", "nb", "nb_scripts", "pytest11"}
    for section in points:
        for target in points[section].values():
            module = target.partition(":")[0].replace(".", "/")
            assert {f"{module}.py", f"{module}/__init__.py"} & set(wheel.namelist()), target
