"""The set-up commands of both READMEs in an empty Debian, word for word: ``python -m tests.compatibility.debian``.

debootstrap makes a root with Python and nothing else; an ordinary user unpacks this checkout there and types what the
README shows. Packages come from where this machine's apt and pip get theirs. Linux, as root; some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.compatibility.project import ROOT
from tests.compatibility.running import INTERRUPTED, LEFT_SECONDS, started, take_signals

READMES = ("README.md", "README.zh-CN.md")
COMMANDS = ("run", "test")
PACKAGES = "python3,python3-venv,ca-certificates"
"""What a user has to have before the first command."""

USER = "newcomer"

BOOTSTRAP_SECONDS = 900
RUN_SECONDS = 600
"""The first command installs, then starts."""

TEST_SECONDS = 3600
"""The suite takes 7 minutes alone on an idle machine."""

WORKS = [re.compile(words) for words in ("child nonebot ready in", "Passive receive: ", "Active receive: ")]
"""Lines that the README promises."""

MOUNTS = """
mount --make-rprivate /
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount --rbind /dev "$ROOT/dev"
IFS=$'\n'
for place in $SHARED; do
    inside=$ROOT${place/#"$OLD_HOME"/"$HOME"}
    if [ -d "$place" ]; then mkdir -p "$inside"; else mkdir -p "$(dirname "$inside")"; touch "$inside"; fi
    mount --bind -o ro "$place" "$inside"
done
trap : INT
chroot "$ROOT" runuser -u "$USER" -- bash -c "$COMMAND"
exit $?
"""
"""Run in namespaces of its own, so that mounts and processes end with it. The trap keeps the first process waiting."""


class CannotTry(Exception):
    """What is missing on this machine, in one line."""


@dataclass(frozen=True)
class Outcome:
    readme: str
    name: str
    command: str
    worked: bool
    seconds: float
    last_line: str


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    take_signals()
    try:
        root = options.root or Path(tempfile.gettempdir()) / "lycomm-debian"
        try:
            make_root(root, options.release)
            outcomes = [_tried(root, readme, name) for readme in options.readme for name in options.command]
        finally:
            if not options.keep and (root / "home" / USER).exists():
                shutil.rmtree(root, ignore_errors=True)
    except CannotTry as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    print()
    for outcome in outcomes:
        print(f"{'ok    ' if outcome.worked else 'FAILED'} {outcome.readme}, {outcome.name}: $ {outcome.command}")
        print(f"       {outcome.seconds:.0f} s; {outcome.last_line}")
    return 0 if all(outcome.worked for outcome in outcomes) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility.debian", description=__doc__)
    parser.add_argument("--readme", nargs="+", default=READMES, choices=READMES, help="these pages")
    parser.add_argument("--command", nargs="+", default=COMMANDS, choices=COMMANDS, help="these commands")
    parser.add_argument("--release", help="code name of the Debian or Ubuntu release: that of this machine")
    parser.add_argument("--root", type=Path, help="the folder of the new system: one for temporary files")
    parser.add_argument("--keep", action="store_true", help="leave the system there; the next run uses it again")
    return parser.parse_args(arguments)


def make_root(root: Path, release: str | None = None) -> None:
    """Make an empty system in *root*, if there is none yet, with a user and this machine's name server."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise CannotTry("this needs root and debootstrap: apt-get install debootstrap")
    if not (root / "home" / USER).exists():
        if root.exists():
            raise CannotTry(f"{root} is there already, and is no system that this command has made")
        mirror, codename = apt_source(release)
        _tell(f"debootstrap {codename} with {PACKAGES}")
        root.mkdir(parents=True)
        bootstrap = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", codename, str(root), mirror]
        done = subprocess.run(bootstrap, capture_output=True, encoding="utf-8", timeout=BOOTSTRAP_SECONDS)
        if done.returncode != 0:
            shutil.rmtree(root)
            raise CannotTry(f"debootstrap failed: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
        _checked("chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", USER)
    for name in ("resolv.conf", "hosts"):
        shutil.copy(Path("/etc") / name, root / "etc" / name)


def apt_source(release: str | None) -> tuple[str, str]:
    """The address from which this machine's apt gets its own distribution, and the release's code name."""
    system = Path("/etc/os-release").read_text("utf-8")
    codename = _match(r"^VERSION_CODENAME=(.+)$", system)
    targets = _checked("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)")
    for line in targets.splitlines():
        address, name, component = line.split()
        if name == codename and component == "main":
            return address, release or codename
    raise CannotTry(f"apt has no index of {codename} main on this machine: apt-get update")


def pip_settings() -> tuple[dict[str, str], list[Path]]:
    """Variables and files that tell pip on this machine where packages are: the same has to hold in the root."""
    wanted = re.compile(r"PIP_|(SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE)$|(HTTPS?|NO|ALL)_PROXY$", re.IGNORECASE)
    variables = {name: value for name, value in os.environ.items() if wanted.match(name)}
    pip = [sys.executable, "-m", "pip"]
    debug = _checked(*pip, "config", "debug")
    files = [Path(path) for path in re.findall(r"^\s+(/.+), exists: True$", debug, re.MULTILINE)]
    settings = _checked(*pip, "config", "list")
    # The pages of an index on disk name files beside them.
    values = [*variables.values(), *shlex.split(settings)]
    named = [path.parent if path.name == "simple" else path for value in values for path in paths_in(value)]
    found = {path for path in (*files, *named) if path.exists()}
    return variables, sorted(path for path in found if not found & set(path.parents))


def paths_in(text: str) -> list[Path]:
    """The absolute paths that *text* names, also as ``file://`` addresses; other addresses have none."""
    return [Path(path) for path in re.findall(r"(?:^|(?<=[\s='\"])|(?<=file://))/[^\s'\",/][^\s'\",]*", text)]


def _tried(root: Path, readme: str, name: str) -> Outcome:
    home = root / "home" / USER
    shutil.rmtree(home / "lycomm", ignore_errors=True)
    _unpack(home / "lycomm")
    command = _checked(
        sys.executable, str(home / "lycomm" / ".ci" / "readme-command"), name, str(home / "lycomm" / readme)
    )
    command = command.strip()
    _tell(f"{readme}: $ {command}")
    began = time.monotonic()
    worked, lines = asyncio.run(_run(root, command, name))
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    return Outcome(readme, name, command, worked, time.monotonic() - began, last.strip())


def _unpack(folder: Path) -> None:
    """Put what is committed into *folder*, as the user's own."""
    folder.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(ROOT), "archive", "HEAD"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=archive.stdout, timeout=60, check=True)
    owner = folder.parent.stat()
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


async def _run(root: Path, command: str, name: str) -> tuple[bool, list[str]]:
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-e", "-c", MOUNTS]
    async with started(namespaces, root, _environment(root, command)) as program:
        if name == "run":
            works = all([await program.appears(line, RUN_SECONDS) is not None for line in WORKS])
        else:
            works = await program.ends(TEST_SECONDS)
        code = await program.interrupt()
        await program.leave(LEFT_SECONDS)
        for line in program.lines:
            print(f"    {line}", flush=True)
        _tell(f"exit code {code}")
        return works and code == 0, program.lines


def _environment(root: Path, command: str) -> dict[str, str]:
    """The variables of a fresh login, and those of this machine that tell pip where packages are."""
    variables, files = pip_settings()
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    home = f"/home/{USER}"
    ours = {"PATH": path, "HOME": home, "USER": USER, "LOGNAME": USER, "SHELL": "/bin/bash", "TERM": "dumb"}
    shared = "\n".join(map(str, files))
    return {
        **variables,
        **ours,
        "ROOT": str(root),
        "SHARED": shared,
        "OLD_HOME": str(Path.home()),
        "COMMAND": f"cd {home}/lycomm\n{command}",
    }


def _checked(*command: str) -> str:
    """The output of a short command. CannotTry with its last words if it fails."""
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise CannotTry(f"{' '.join(command[:3])} failed: {words[-1] if words else done.returncode}")
    return done.stdout


def _match(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise CannotTry(f"/etc/os-release has no {pattern}")
    return found[1].strip('"')


def _tell(line: str) -> None:
    print(f"--- {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
