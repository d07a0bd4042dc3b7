"""The new system in which the README is tried finds packages where this machine finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compatibility.debian import paths_in


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("global.find-links=/srv/wheels", ["/srv/wheels"]),
        ("/etc/ssl/certs/ca.crt", ["/etc/ssl/certs/ca.crt"]),
        ("file:///srv/index/simple file:///srv/more/simple", ["/srv/index/simple", "/srv/more/simple"]),
        ("https://index.example/simple", []),
        ("global.index-url=http://user:secret@index.example/simple/", []),
        ("relative/path", []),
        ("180", []),
    ],
)
def test_the_paths_in_a_setting_of_pip_are_found(value: str, paths: list[str]) -> None:
    assert paths_in(value) == [Path(path) for path in paths]
