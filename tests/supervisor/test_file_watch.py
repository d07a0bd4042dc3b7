"""What counts as a save, with real files and the system's own reports.

That nothing is told is shown by a save that follows: it is then told, and told alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from loguru import logger
from supervisor_kit import DEADLINE, LogLines, child

from liteyuki_host import boundary
from liteyuki_host.supervisor import code_files, file_watch
from liteyuki_host.supervisor.file_watch import Change, FileWatch

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege")


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "QUIET_SECONDS", 0.15)
    monkeypatch.setattr(file_watch, "STEP_SECONDS", 0.03)
    monkeypatch.setattr(file_watch, "TICK_SECONDS", 0.2)
    monkeypatch.setattr(file_watch, "POLL_SECONDS", 0.1)


@pytest.fixture(scope="module", autouse=True)
def _the_library_closes_its_descriptors() -> Iterator[None]:
    """A moment after its watch was closed, on a thread of its own. What it never closes is found after this one."""
    yield
    deadline = time.monotonic() + DEADLINE
    while "anon_inode:inotify" in _open_files() and time.monotonic() < deadline:
        time.sleep(0.01)


def _open_files() -> list[str]:
    """What Linux tells of them; elsewhere nothing."""
    found = []
    for link in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


@pytest.fixture
async def log_lines() -> AsyncIterator[LogLines]:
    """As the supervisor's; written to from the watch's thread."""
    lines, loop = LogLines(), asyncio.get_running_loop()
    sink = logger.add(lambda line: loop.call_soon_threadsafe(lines.write, line), format="{message}", level="INFO")
    yield lines
    logger.remove(sink)


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    """A project with a bit of everything."""
    folder = tmp_path / "bot"
    for name in ("bot.py", "pyproject.toml", ".env", ".env.prod", "plugins/mine.py", "plugins/__pycache__/mine.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("# 1\n")
    (folder / "env" / "lib").mkdir(parents=True)
    (folder / "env" / "pyvenv.cfg").touch()
    return folder


class Watched:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: asyncio.Queue[Sequence[Change]] = asyncio.Queue()

    async def saved(self) -> list[str]:
        """The next save, relative to the project."""
        changes = await asyncio.wait_for(self.told.get(), DEADLINE)
        return [change.path.relative_to(self.folder).as_posix() for change in changes]

    async def only_the_next_save(self) -> None:
        """Nothing was told so far."""
        sign = self.folder / "sign.py"
        sign.write_text(f"# {os.urandom(4).hex()}")
        assert await self.saved() == ["sign.py"]


@asynccontextmanager
async def watched(folder: Path, **options: object) -> AsyncIterator[Watched]:
    project = Watched(folder)
    watch = FileWatch(child(project=folder, **options), project.told.put_nowait)
    await asyncio.wait_for(watch.start(), DEADLINE)
    try:
        yield project
    finally:
        watch.close()


def vim(file: Path) -> None:
    (file.parent / "4913").touch()  # may it write here?
    (file.parent / "4913").unlink()
    backup = file.with_name(f"{file.name}~")
    file.rename(backup)
    with file.open("w") as new:
        new.write("# 2\n")
        new.flush()
        os.fsync(new.fileno())
    file.chmod(0o644)
    backup.unlink()


def vs_code(file: Path) -> None:
    with file.open("r+") as same:
        same.truncate()
        same.flush()
        os.fsync(same.fileno())
        same.write("# 2\n")


def pycharm(file: Path) -> None:
    new, old = file.with_name(f"{file.name}___jb_tmp___"), file.with_name(f"{file.name}___jb_old___")
    new.write_text("# 2\n")
    file.rename(old)
    new.rename(file)
    old.unlink()


def nano(file: Path) -> None:
    lock = file.with_name(f".{file.name}.swp")
    lock.write_text("nano")
    with file.open("w") as same:
        same.write("# 2\n")
    lock.unlink()


def emacs(file: Path) -> None:
    lock = file.with_name(f".#{file.name}")
    lock.write_text("me@here")
    shutil.copy2(file, file.with_name(f"{file.name}~"))
    file.write_text("# 2\n")
    lock.unlink()


def formatter_on_save(file: Path) -> None:
    file.write_text("#2\n")
    os.replace(shutil.copy(file, file.with_name("tmp1234")), file)


@pytest.mark.parametrize(
    ("editor", "file"),
    [
        *((editor, "bot.py") for editor in (vim, vs_code, pycharm, nano, emacs, formatter_on_save)),
        *((vim, file) for file in ("plugins/mine.py", ".env", ".env.prod", "pyproject.toml")),
    ],
)
async def test_one_save_is_told_once(bot: Path, editor: Callable[[Path], None], file: str) -> None:
    async with watched(bot) as project:
        editor(bot / file)
        assert await project.saved() == [file]
        await project.only_the_next_save()


async def test_a_save_in_several_steps_is_told_when_it_has_come_to_rest(bot: Path) -> None:
    """As a checkout of many files takes its time."""
    async with watched(bot) as project:
        told = asyncio.ensure_future(project.saved())
        for number in range(8):
            (bot / f"new{number}.py").touch()
            await asyncio.sleep(file_watch.QUIET_SECONDS / 3)
        assert await told == [f"new{number}.py" for number in range(8)]
        await project.only_the_next_save()


async def test_a_save_that_does_not_end_is_told_after_a_while(bot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "LONGEST_SECONDS", 0.5)

    async def go_on() -> None:
        while True:
            (bot / "bot.py").write_text(f"# {os.urandom(4).hex()}")
            await asyncio.sleep(file_watch.QUIET_SECONDS / 3)

    async with watched(bot) as project:
        saving = asyncio.ensure_future(go_on())
        assert await project.saved() == ["bot.py"]
        saving.cancel()


def read_all(bot: Path) -> None:
    for path in bot.rglob("*.py"):
        path.read_bytes()
        os.utime(path, ns=(1, path.stat().st_mtime_ns))  # the time it was read, also where the disk keeps none


def write_what_is_no_code(bot: Path) -> None:
    for name in (
        *("plugins/__pycache__/mine.py", ".git/hooks.py", "env/lib/x.py", ".lycomm/x.toml", "build/lib/x.py"),
        *("bot.log", "data/images/cat.png", "data/bot.db", "mine.egg-info/x.toml", ".env~", ".env.swp", ".#bot.py"),
    ):
        (bot / name).parent.mkdir(parents=True, exist_ok=True)
        (bot / name).write_text("x")


def write_and_take_back(bot: Path) -> None:
    (bot / "tmp.py").touch()
    (bot / "tmp.py").unlink()


def change_permissions(bot: Path) -> None:
    (bot / "bot.py").chmod(0o600)


def touch_all(bot: Path) -> None:
    for path in bot.rglob("*"):
        path.touch()


def write_the_same_again(bot: Path) -> None:
    for path in (bot / "bot.py", bot / ".env", bot / "pyproject.toml"):
        path.write_bytes(path.read_bytes())


def put_the_same_in_its_place(bot: Path) -> None:
    """As rsync does, and editors that write beside and rename."""
    os.replace(shutil.copy(bot / "bot.py", bot / "bot.py.tmp"), bot / "bot.py")


def check_out_another_branch_and_back(bot: Path) -> None:
    for text in ("# 2\n", "# 1\n"):
        for name in ("bot.py", "plugins/mine.py", "pyproject.toml"):
            (bot / name).unlink()
            (bot / name).write_text(text)


def write_settings_of_its_own(bot: Path) -> None:
    for name in ("config.toml", "data/state.toml", "data/pyproject.toml"):
        (bot / name).parent.mkdir(exist_ok=True)
        (bot / name).write_text("a = 1\n")


@pytest.mark.parametrize(
    "act",
    [
        *(read_all, write_what_is_no_code, write_and_take_back, change_permissions, touch_all, write_the_same_again),
        *(put_the_same_in_its_place, check_out_another_branch_and_back, write_settings_of_its_own),
    ],
)
async def test_without_a_save_nothing_is_told(bot: Path, act: Callable[[Path], None]) -> None:
    async with watched(bot) as project:
        act(bot)
        await project.only_the_next_save()


async def test_a_bot_that_never_ceases_to_write_files_does_not_hide_a_save(bot: Path) -> None:
    async def download() -> None:
        for number in itertools.count():
            (bot / "data" / f"{number}.png").touch()
            await asyncio.sleep(0.005)

    (bot / "data").mkdir()
    async with watched(bot) as project:
        downloading = asyncio.ensure_future(download())
        (bot / "bot.py").write_text("# 2\n")
        assert await project.saved() == ["bot.py"]
        await project.only_the_next_save()
        downloading.cancel()


async def test_new_folders_are_watched_whatever_the_system_reports_of_them(bot: Path, tmp_path: Path) -> None:
    async with watched(bot) as project:
        (bot / "plugins" / "a" / "b").mkdir(parents=True)
        (bot / "plugins" / "a" / "b" / "c.py").touch()
        assert await project.saved() == ["plugins/a/b/c.py"]
        (tmp_path / "ready").mkdir()
        (tmp_path / "ready" / "d.py").touch()
        (tmp_path / "ready").rename(bot / "plugins" / "d")
        assert await project.saved() == ["plugins/d/d.py"]
        (bot / "plugins" / "d" / "d.py").write_text("# 2")
        assert await project.saved() == ["plugins/d/d.py"]
        shutil.rmtree(bot / "plugins" / "a")
        assert await project.saved() == ["plugins/a/b/c.py"]
        (bot / "plugins" / "d").rename(tmp_path / "gone")
        assert await project.saved() == ["plugins/d/d.py"]
        await project.only_the_next_save()


async def test_a_folder_that_goes_and_comes_back(bot: Path, log_lines: LogLines) -> None:
    """A project that is deployed anew. As long as it is away there is nothing to reload."""
    async with watched(bot) as project:
        away = bot.with_name("away")
        bot.rename(away)
        await log_lines.line("child bot: folder .*bot is not there; its files are watched once it is")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(project.told.get(), 4 * file_watch.QUIET_SECONDS)
        shutil.copytree(away, bot)
        (bot / "bot.py").write_text("# 2\n")
        assert await project.saved() == ["bot.py"]
        (bot / "bot.py").write_text("# 3 \n")
        assert await project.saved() == ["bot.py"]
        (away / "bot.py").write_text("# 4  \n")
        await project.only_the_next_save()
        log_lines.lines.clear()
        bot.rename(bot.with_name("again"))
        await log_lines.line("child bot: folder .*bot is not there; its files are watched once it is")


async def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    async with watched(tmp_path / "bot") as project:
        (tmp_path / "bot").mkdir()
        (tmp_path / "bot" / "bot.py").touch()
        assert await project.saved() == ["bot.py"]
        await project.only_the_next_save()


@needs_links
async def test_links_are_followed_and_may_be_turned(bot: Path, tmp_path: Path) -> None:
    """`current` is how a release is put in place; a link to a folder above is no trap."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (bot / "linked").symlink_to(shared)
    (bot / "plugins" / "loop").symlink_to("..")
    (bot / ".#bot.py").symlink_to("me@here.1234")  # emacs locks files so
    current = tmp_path / "current"
    current.symlink_to(bot)
    async with watched(current) as project:
        (bot / "bot.py").write_text("# 2\n")
        assert await project.saved() == ["bot.py"]
        if sys.platform == "linux":  # FSEvents reports nothing of where a link leads
            (shared / "x.py").touch()
            assert await project.saved() == ["linked/x.py"]
        release = tmp_path / "release"
        shutil.copytree(bot, release, symlinks=True)
        (release / "new.py").touch()
        (tmp_path / "next").symlink_to(release)
        os.replace(tmp_path / "next", current)
        assert "new.py" in await project.saved()
        (bot / "bot.py").write_text("# 5\n")  # the release of before
        await project.only_the_next_save()


async def test_folders_that_overlap_are_watched_once(bot: Path, tmp_path: Path) -> None:
    """Also one that lies where the other does not look: a package of ours in the virtual environment."""
    lib = bot / "env" / "lib"
    twice = bot / "plugins" / ".." / "plugins"
    async with watched(bot, reload_dirs=(bot / "plugins", twice, bot, lib)) as project:
        (bot / "plugins" / "mine.py").write_text("# 2\n")
        assert await project.saved() == ["plugins/mine.py"]
        (lib / "ours.py").touch()
        assert await project.saved() == ["env/lib/ours.py"]
        await project.only_the_next_save()


async def test_each_toml_in_a_folder_that_reload_dirs_names_counts(bot: Path) -> None:
    async with watched(bot, reload_dirs=(bot / "plugins",)) as project:
        (bot / "pyproject.toml").write_text("# 2\n")
        (bot / "plugins" / "words.toml").touch()
        assert await project.saved() == ["plugins/words.toml"]


async def test_a_change_that_the_times_do_not_show_is_seen(bot: Path) -> None:
    """Some disks keep times in steps of 2 s, and tools put them back."""
    (bot / "bot.py").write_text("# 1\n")
    async with watched(bot) as project:
        times = (bot / "bot.py").stat()
        (bot / "bot.py").write_text("# 2\n")
        os.utime(bot / "bot.py", ns=(times.st_atime_ns, times.st_mtime_ns))
        assert await project.saved() == ["bot.py"]


async def test_of_a_huge_file_the_time_decides(bot: Path) -> None:
    """It is not read: who touches it has changed it."""
    huge = bot / "huge.py"
    with huge.open("wb") as file:
        file.truncate(code_files.MAX_HASHED + 1)
    async with watched(bot) as project:
        os.utime(huge, ns=(1, 1))
        assert await project.saved() == ["huge.py"]


async def test_a_file_that_may_be_read_again_has_not_changed(bot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[object] = []

    def refuse(path: str, mode: str) -> object:
        refused.append(path)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as locked:
        locked.setattr(code_files, "open", refuse, raising=False)
        async with watched(bot) as project:
            assert refused
            locked.undo()
            await project.only_the_next_save()


async def test_only_the_declared_folders_count(bot: Path, tmp_path: Path) -> None:
    async with watched(bot, reload_dirs=(bot / "plugins",)) as project:
        (bot / "bot.py").write_text("# 2\n")
        (bot / "plugins" / "mine.py").write_text("# 2\n")
        assert await project.saved() == ["plugins/mine.py"]


LIMIT = 'OS file watch limit reached. about ["/a"] (Error { kind: MaxFilesWatch, paths: ["/a"] })'


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(LIMIT), r"\(OS file watch limit reached\)"),
        (RuntimeError("Too many open files (os error 24)"), r"\(Too many open .*24\)\)"),
    ],
)
async def test_where_the_system_cannot_report_we_look(
    bot: Path, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines, error: Exception, words: str
) -> None:
    def refuse(*_paths: str, **_options: object) -> Iterator[object]:
        raise error

    monkeypatch.setattr(watchfiles, "watch", refuse)
    async with watched(bot) as project:
        await log_lines.line(f"does not report changed files {words}; looking at them every 0.1 s instead")
        (bot / "bot.py").write_text("# 2\n")
        assert await project.saved() == ["bot.py"]
        await project.only_the_next_save()
    assert log_lines.count("does not report") == 1


UNDER_A_LIMIT = """
import asyncio, sys
from pathlib import Path
from liteyuki_host.supervisor.file_watch import FileWatch
from liteyuki_host.supervisor.spec import ProcessSpec

async def main(folder):
    told = asyncio.Queue()
    watch = FileWatch(ProcessSpec(name="bot", project=folder), told.put_nowait)
    await watch.start()
    (folder / "plugins" / "mine.py").write_text("# 2")
    print(await asyncio.wait_for(told.get(), 10))
    watch.close()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "words", "helps"),
    [
        (
            "max_inotify_watches 1",
            "file watch limit reached",
            "raise fs.inotify.max_user_watches (sysctl), or name the",
        ),
        ("max_inotify_instances 0", "Too many open files", "raise fs.inotify.max_user_instances (sysctl)"),
    ],
)
def test_the_real_limits_of_linux(bot: Path, limit: str, words: str, helps: str) -> None:
    """In a user namespace, which has limits of its own."""
    name, value = limit.split()
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", f"echo {value} > /proc/sys/user/{name} || exit 99"]
    if sys.platform != "linux" or shutil.which("unshare") is None or subprocess.run(command).returncode:
        pytest.skip("needs user namespaces")
    command[-1] += '; exec "$@"'
    command += ["sh", sys.executable, "-c", UNDER_A_LIMIT, str(bot)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert words in done.stderr
    assert f"What helps: {helps}" in done.stderr
    assert "plugins/mine.py" in done.stdout


SHORT_OF_DESCRIPTORS = """
import os, resource, sys, watchfiles
from liteyuki_host.supervisor import file_watch

watch = {"rust_timeout": 1, "yield_on_timeout": True}
first = watchfiles.watch(sys.argv[1], **watch)
next(first)  # all modules are loaded
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
free = os.dup(1)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
try:
    next(watchfiles.watch(sys.argv[1], **watch))
except Exception as error:
    helps = file_watch._remedy(error)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(repr(error), helps)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_a_shortage_of_descriptors_is_told_as_one(bot: Path) -> None:
    """inotify gives the same error for it as for its own limit."""
    command = [sys.executable, "-c", SHORT_OF_DESCRIPTORS, str(bot)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert "Too many open files" in done.stdout, done.stderr
    assert "raise the limit of open files (ulimit -n" in done.stdout


async def test_more_files_than_are_watched_are_told(
    bot: Path, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    monkeypatch.setattr(code_files, "MAX_WATCHED", 4)
    async with watched(bot) as project:
        await log_lines.line("child bot: more than 4 files and folders to watch; the rest is left out")
        (bot / "bot.py").write_text("# 2\n")  # of the folder itself, which comes first
        assert await project.saved() == ["bot.py"]
    assert log_lines.count("more than 4") == 1


async def test_a_watch_that_breaks_is_told_once_and_goes_on(
    bot: Path, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines
) -> None:
    watch = watchfiles.watch
    broken = 3

    def break_down(*paths: str, **options: Any) -> Iterator[Any]:
        nonlocal broken
        broken -= 1
        if broken >= 0:
            raise ZeroDivisionError
        return watch(*paths, **options)

    monkeypatch.setattr(boundary, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(watchfiles, "watch", break_down)
    async with watched(bot) as project:
        await log_lines.line("child bot: looking at its files failed inside lycomm; trying again. Please report this")
        (bot / "bot.py").write_text("# saved while nobody looked\n")
        assert await project.saved() == ["bot.py"]
    assert log_lines.count("failed inside lycomm") == 1


async def test_a_shortage_deletes_no_files(bot: Path, monkeypatch: pytest.MonkeyPatch, log_lines: LogLines) -> None:
    """A folder that could not be listed for want of a descriptor used to count as emptied, and the bot was reloaded."""
    short = False
    scandir = os.scandir

    def look(path: str) -> Any:
        if short:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return scandir(path)

    monkeypatch.setattr(boundary, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(os, "scandir", look)
    async with watched(bot) as project:
        short = True
        (bot / "bot.py").write_text("# 2\n")
        await log_lines.line("child bot: looking at its files failed: Too many open files; trying again until it works")
        short = False
        assert await project.saved() == ["bot.py"]  # all the others are still there
        await log_lines.line("child bot: looking at its files works again")
