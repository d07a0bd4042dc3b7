"""``lycomm check`` on real projects: what keeps a bot from starting is found before anything starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ports import free_port

from liteyuki_host.cli import main
from liteyuki_host.settings import ProcessSettings, Settings
from liteyuki_host.supervisor.trial import seconds_for

pytestmark = pytest.mark.slow

TABLE = "[tool.nonebot]\n"
NONE = "DRIVER=~none\n"
BOT = "import nonebot\nnonebot.init()\nnonebot.run()\n"

Check = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PORT", "HOST", "DRIVER", "ENVIRONMENT", "SUPERUSERS", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def check(project: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Write files and check: exit code, what stands on stdout, what on stderr without its ``lycomm: ``."""

    def run(files: dict[str, str] | None = None, *arguments: str) -> tuple[int, list[str], list[str]]:
        for name, text in (files or {}).items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(textwrap.dedent(text), "utf-8")
        before = written(project)
        capsys.readouterr()
        code = main(["check", "--project", str(project), *arguments])
        captured = capsys.readouterr()
        assert written(project) == before, "check has written something"
        errors = captured.err.splitlines()
        assert all(line.startswith("lycomm: ") for line in errors), captured.err
        return code, captured.out.splitlines(), [line.removeprefix("lycomm: ") for line in errors]

    return run


def written(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def port() -> int:
    return free_port()


def faults(check: Check, files: dict[str, str], *arguments: str) -> list[str]:
    code, out, errors = check(files, *arguments)
    assert code == 1, (out, errors)
    assert errors
    return errors


# What NoneBot refuses


def test_a_good_project_is_one_line(check: Check, project: Path) -> None:
    code, out, errors = check({"pyproject.toml": TABLE, ".env": NONE})
    assert (code, errors) == (0, [])
    assert out == [f"nonebot: [tool.nonebot] in {project} with {sys.executable}"]


@pytest.mark.parametrize("form", ["list", "table"])
def test_an_adapter_that_is_not_installed(check: Check, form: str) -> None:
    entry = '[{name="x", module_name="nonebot.adapters.nothere"}]'
    adapters = f"adapters = {entry}" if form == "list" else f'[tool.nonebot.adapters]\n"some-adapter" = {entry}'
    [line] = faults(check, {"pyproject.toml": f"{TABLE}{adapters}\n", ".env": NONE})
    assert line.startswith("nonebot: adapter module 'nonebot.adapters.nothere' is not installed for this bot")
    assert f"-m pip install {'nonebot-adapter-nothere' if form == 'list' else 'some-adapter'}`" in line


def test_a_driver_that_is_not_there(check: Check) -> None:
    [line] = faults(check, {"pyproject.toml": TABLE, ".env": "DRIVER=~fastap\n"})
    assert line == "nonebot: DRIVER in .env: there is no driver ~fastap; did you mean ~fastapi?"


@pytest.mark.parametrize("option", [(), ("--no-import",)], ids=["import", "no import"])
def test_a_value_that_nonebot_refuses_in_front_of_a_script(check: Check, option: tuple[str, ...]) -> None:
    [line] = faults(check, {"bot.py": BOT, ".env": f"{NONE}SUPERUSERS=[1,\n"}, *option)
    assert line == """nonebot: SUPERUSERS in .env: '[1,' is not JSON; write it like SUPERUSERS=["123456789"]"""


def test_a_value_is_told_with_the_place_that_counts(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"pyproject.toml": TABLE, ".env": f"{NONE}ENVIRONMENT=dev\nPORT=8080\n", ".env.dev": "PORT=dev\n"}
    assert faults(check, files)[0].startswith("nonebot: PORT in .env.dev: 'dev': ")
    monkeypatch.setenv("PORT", "outside")
    assert faults(check, files)[0].startswith("nonebot: PORT in the environment: 'outside': ")
    declared = "[tool.lycomm.processes.a]\nenv = { PORT = 'inside' }\n"
    files["pyproject.toml"] = TABLE + declared
    assert faults(check, files)[0].startswith("a: PORT in env of [tool.lycomm.processes.a]: 'inside': ")


def test_all_problems_of_a_project_are_told(check: Check) -> None:
    files = {
        "pyproject.toml": f"""{TABLE}
            adapters = [{{ name = "x", module_name = "nonebot.adapters.nothere" }}]
            plugins = ["not_there"]
            builtin_plugins = ["echo", "ecko"]
            plugin_dirs = ["src/plugins"]
        """,
        ".env": "DRIVER=~fastap+~aiohttp\nSUPERUSERS=[1,\nPORT=abc\nno value\n",
    }
    code, out, errors = check(files)
    assert code == 1
    assert [line.split(": ")[1] for line in errors] == [
        "PORT in .env",
        "SUPERUSERS in .env",
        "DRIVER in .env",
        "DRIVER in .env",
        "adapter module 'nonebot.adapters.nothere' is not installed for this bot",
        "plugin module 'not_there' is not installed for this bot",
        "builtin plugin 'ecko' does not exist in this NoneBot; the bot would run without it",
    ]
    assert out == [
        "nonebot: note: line 4 of .env is not of the form NAME=value: NoneBot leaves it out",
        "nonebot: note: plugin_dirs in [tool.nonebot]: folder src/plugins does not exist; no plugin is loaded from it",
    ]


def test_settings_that_a_script_passes_itself_are_not_looked_for_in_dotenv(check: Check) -> None:
    """Only loading it tells what counts, and without that nothing wrong is claimed."""
    files = {"bot.py": 'import nonebot\nnonebot.init(driver="~none")\nnonebot.run()\n', ".env": "DRIVER=~fastap\n"}
    for option in ((), ("--no-import",)):
        code, _, errors = check(files, *option)
        assert (code, errors) == (0, [])


# Loading the bot


@pytest.mark.parametrize("call", ['nonebot.init(driver="~none")', "nonebot.init()"])
@pytest.mark.parametrize("value", ["HOST=localhost", "SUPERUSERS=[1,", "COMMAND_START=/"])
def test_a_wrong_value_that_a_script_does_not_pass_itself(check: Check, call: str, value: str) -> None:
    """Passing one setting does not overrule the others: the bot cannot start, as loading it has shown."""
    files = {"bot.py": f"import nonebot\n{call}\nnonebot.run()\n", ".env": f"{value}\n"}
    (line,) = faults(check, files)
    assert f"{value.partition('=')[0]} in .env" in line


def test_a_plugin_that_cannot_be_loaded_is_told_with_its_line(check: Check) -> None:
    files = {
        "pyproject.toml": f'{TABLE}plugin_dirs = ["plugins"]\nplugins = ["not_there"]\n',
        ".env": NONE,
        "plugins/weather.py": "import nonebot\n\n1 / 0\n",
        "plugins/news.py": "def\n",
        "plugins/good.py": "",
    }
    not_there, news, weather = sorted(faults(check, files))
    assert news.startswith("nonebot: plugins/news.py line 1: SyntaxError: ")
    assert "'not_there' is not installed" in not_there
    assert weather.startswith("nonebot: plugins/weather.py line 3: ZeroDivisionError: division by zero")
    assert all(line.endswith("; the bot would run without this plugin") for line in (news, not_there, weather))
    assert len(faults(check, {}, "--no-import")) == 1


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import sys\nsys.exit('no')\n", "bot.py ended by sys.exit('no') before it called nonebot.run()"),
        ("raise SystemExit\n", "bot.py ended by sys.exit(None)"),
        ("", "bot.py came to its end without having called nonebot.run()"),
        ("import nothing_like_it\n", "bot.py line 1: module 'nothing_like_it' is not installed"),
        ("import os, signal\nos.kill(os.getpid(), 9)\n", "it was killed by SIGKILL while it was loaded"),
        ("import os\nprint('last words', flush=True)\nos._exit(4)\n", "it exited 4 while it was loaded; the last line"),
        ("print('x' * 1000000)\n1 / 0\n", "bot.py line 2: ZeroDivisionError"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=[600]).start()\n1 / 0\n", "bot.py line 3"),
    ],
)
def test_a_script_that_cannot_be_loaded(check: Check, script: str, words: str) -> None:
    [line] = faults(check, {"bot.py": script, ".env": NONE})
    assert line.startswith(f"nonebot: {words}")
    assert len(line) < 1000


def test_a_script_that_never_returns_is_given_up(check: Check) -> None:
    files = {
        "bot.py": "while True: pass\n",
        ".env": NONE,
        "pyproject.toml": "[tool.lycomm]\nready_timeout = 1.0\n",
    }
    [line] = faults(check, files)
    assert line.startswith("nonebot: it was not loaded in 1 s (an import that does not return, or a loop of its own in")


@pytest.mark.parametrize(
    "noise",
    [
        "print('x' * 10_000_000)",
        "import threading, time; threading.Thread(target=time.sleep, args=[600]).start()",
        "import sys; sys.stdout = sys.stderr = None",
        "import sys; sys.stdout.close()",
    ],
)
def test_a_bot_that_prints_or_starts_threads_or_has_no_streams_is_good(check: Check, noise: str) -> None:
    code, _, errors = check({"bot.py": f"{noise}\n{BOT}", ".env": NONE})
    assert (code, errors) == (0, [])


def test_without_import_nothing_of_the_project_runs(check: Check, project: Path) -> None:
    code, out, errors = check(
        {
            "pyproject.toml": f'{TABLE}plugins = ["package.plugin"]\n',
            ".env": NONE,
            "package/__init__.py": "open('ran', 'w')\n",
            "package/plugin.py": "open('ran', 'w')\n",
        },
        "--no-import",
    )
    assert (code, errors, len(out)) == (0, [], 1)
    assert check({"bot.py": f"open('ran', 'w')\n{BOT}"}, "--no-import")[0] == 0


# Servers that start without nonebot.run()

INIT = "import asyncio, nonebot, socket, sys, threading\nnonebot.init()\ndriver = nonebot.get_driver()\n"
SERVERS = {
    "uvicorn": "import uvicorn\nuvicorn.run(nonebot.get_asgi(), port={port})\n",
    "uvicorn in a loop": "import uvicorn\nserver = uvicorn.Server(uvicorn.Config(nonebot.get_asgi(), port={port}))\n"
    "asyncio.run(server.serve())\n",
    "uvicorn without a lifespan": "import uvicorn\nuvicorn.run(nonebot.get_asgi(), port={port}, lifespan='off')\n",
    "another server": "async def serve():\n    server = await asyncio.start_server(print, '127.0.0.1', {port})\n"
    "    await server.serve_forever()\nasyncio.run(serve())\n",
    "the driver's lifespan": "async def serve():\n    async with driver._lifespan:\n"
    "        await asyncio.Event().wait()\nasyncio.run(serve())\n",
}


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_a_server_that_the_script_starts_itself_is_not_started(check: Check, port: int, server: str) -> None:
    hook = "@driver.on_startup\ndef started():\n    open('ran', 'w')\n"
    files = {"bot.py": INIT + hook + server.format(port=port), ".env": "DRIVER=~fastapi\n"}
    files["plugins/broken.py"] = "1 / 0\n"
    files["bot.py"] = files["bot.py"].replace("driver =", "nonebot.load_plugins('plugins')\ndriver =")
    before = time.monotonic()
    code, out, errors = check(files)
    assert time.monotonic() - before < 25, "it waited for an end that does not come"
    assert code == 1
    [line] = errors  # what was loaded before has been looked at
    assert line.startswith("nonebot: plugins/broken.py line 1: ZeroDivisionError")
    assert out == [
        "nonebot: note: bot.py starts its server itself, without nonebot.run(): what it does from there on was not "
        "looked at"
    ]


BESIDE = {
    "a short loop": "asyncio.run(asyncio.sleep(0.1))",
    "any free port": """
async def find():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
asyncio.run(find())
""",
    "datagrams": """
async def ask():
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", {port}))
asyncio.run(ask())
""",
    "a thread that serves something else": """
import http.server
one = http.server.HTTPServer(("127.0.0.1", {port}), None)
threading.Thread(target=one.serve_forever, daemon=True).start()
""",
}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_what_is_no_server_in_place_of_run_is_gone_through(check: Check, port: int, beside: str) -> None:
    files = {"bot.py": f"{INIT}{beside.format(port=port)}\n1 / 0\n", ".env": NONE}
    [line] = faults(check, files)
    assert "ZeroDivisionError" in line


def test_a_loop_that_does_not_end_is_given_up(check: Check) -> None:
    files = {
        "bot.py": f"{INIT}asyncio.run(asyncio.sleep(600))\n",
        ".env": NONE,
        "pyproject.toml": "[tool.lycomm]\nready_timeout = 2\n",
    }
    [line] = faults(check, files)
    assert "it was not loaded in 2 s (an import that does not return, or a loop of its own in place of" in line


def test_a_bot_with_a_terminal_has_a_limit_too() -> None:
    """The bot itself has none."""
    declared = {"a": {"terminal": True}, "b": {"terminal": True, "ready_timeout": 5.0}, "c": {"ready_timeout": 300.0}}
    settings = Settings(processes={name: ProcessSettings(**each) for name, each in declared.items()})
    assert [seconds_for(spec) for spec in settings.process_specs().values()] == [60.0, 5.0, 300.0]


# Ports


def test_a_port_that_another_program_has(check: Check, taken: int) -> None:
    [line] = faults(check, {"pyproject.toml": TABLE, ".env": f"PORT={taken}\n"})
    assert line.startswith(f"nonebot: port {taken} on 127.0.0.1 is in use by ")
    assert "end that program, or give this bot another one, by PORT in its .env" in line
    if sys.platform == "linux":
        assert f"(pid {os.getpid()})" in line


@pytest.mark.parametrize("option", [(), ("--no-import",)], ids=["import", "no import"])
def test_two_bots_with_one_port(check: Check, port: int, option: tuple[str, ...]) -> None:
    """Two others are no matter: one listens on another address, one has no server."""
    bots = {"a": "HOST=0.0.0.0", "b": "HOST=127.0.0.1", "c": "HOST=::1", "d": "DRIVER=~none"}
    files = {"pyproject.toml": "".join(f"[tool.lycomm.processes.{name}]\nproject = '{name}'\n" for name in bots)}
    for name, setting in bots.items():
        files |= {f"{name}/pyproject.toml": TABLE, f"{name}/.env": f"PORT={port}\n{setting}\n"}
    [line] = faults(check, files, *option)
    assert line.startswith(
        f"b: port {port} on 127.0.0.1 is also that of a: give one of the two another one, by PORT in"
    )


def test_the_port_of_a_bot_that_starts_only_when_asked_is_a_note(check: Check, port: int) -> None:
    declared = "[tool.lycomm.processes.{0}]\nproject = '{0}'\nautostart = {1}\n"
    files = {"pyproject.toml": declared.format("a", "true") + declared.format("b", "false")}
    files |= {
        f"{name}/{file}": text
        for name in "ab"
        for file, text in (("pyproject.toml", TABLE), (".env", f"PORT={port}\n"))
    }
    code, out, errors = check(files, "--no-import")
    assert (code, errors) == (0, [])
    assert next(line for line in out if "note" in line).startswith(
        f"b: note: port {port} on 127.0.0.1 is also that of a"
    )


def test_a_port_in_the_environment_goes_for_all_bots(check: Check, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", str(port))
    declared = "[tool.lycomm.processes.{0}]\nproject = '{0}'\n"
    files = {"pyproject.toml": declared.format("a") + declared.format("b")}
    files |= {
        f"{name}/{file}": text
        for name in "ab"
        for file, text in (("pyproject.toml", TABLE), (".env", f"PORT={1000 + ord(name)}\n"))
    }
    [line] = faults(check, files, "--no-import")
    assert line.endswith("by PORT in the environment, which beats every .env")


def test_a_host_that_is_not_of_this_machine(check: Check, port: int) -> None:
    [line] = faults(check, {"pyproject.toml": TABLE, ".env": f"HOST=192.0.2.1\nPORT={port}\n"})
    assert line.startswith(f"nonebot: cannot listen on port {port} on 192.0.2.1: ")
    assert line.endswith("correct HOST or PORT in .env")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_port_that_another_program_has(check: Check) -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        port = server.getsockname()[1]
        [line] = faults(check, {"pyproject.toml": TABLE, ".env": f"HOST=::1\nPORT={port}\n"})
    assert line.startswith(f"nonebot: port {port} on ::1 is in use by ")


def test_the_port_that_a_script_passes_is_the_one_that_counts(check: Check, taken: int, port: int) -> None:
    script = f"import nonebot\nnonebot.init()\nnonebot.run(port={port})\n"
    assert check({"bot.py": script, ".env": f"PORT={taken}\n"})[0] == 0
    assert check({}, "--no-import")[0] == 0
    [line] = faults(check, {"bot.py": script.replace(str(port), str(taken)), ".env": f"PORT={port}\n"})
    assert line.startswith(f"nonebot: port {taken} on 127.0.0.1 is in use by ")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Unix sockets in asyncio")
def test_unix_sockets(check: Check) -> None:
    script = "import nonebot\nnonebot.init()\nnonebot.run(uds='{}')\n"
    declared = "[tool.lycomm.processes.{0}]\nproject = 'bots'\nentry = '{0}.py'\n"
    files = {"pyproject.toml": declared.format("a") + declared.format("b"), "bots/a.py": script.format("bot.sock")}
    files["bots/b.py"] = script.format("./bot.sock")
    [line] = faults(check, files)
    assert line.startswith("b: unix:./bot.sock is also that of a")
    files["bots/b.py"] = script.format("run/bot.sock")
    [line] = faults(check, files)  # none of a, whose folder is there
    assert "b: cannot listen on unix:run/bot.sock: folder " in line


# One project, two names; interpreters; the host itself


@pytest.mark.parametrize(("declared", "told"), [("other", True), (".", False)])
def test_the_folders_own_bot_that_no_process_declares(check: Check, declared: str, told: bool) -> None:
    table = f'[tool.lycomm.processes.web]\nproject = "{declared}"\n'
    files = {"pyproject.toml": TABLE + table, "other/pyproject.toml": TABLE, ".env": NONE, "other/.env": NONE}
    code, out, _errors = check(files, "--no-import")
    assert code == 0
    assert any("is not among the declared processes" in line for line in out) is told


def test_two_names_for_one_project(check: Check, project: Path) -> None:
    (project / "bot").mkdir()
    (project / "link").symlink_to(project / "bot")
    declared = "[tool.lycomm.processes.a]\nproject = 'bot'\n[tool.lycomm.processes.b]\nproject = 'link'\n"
    files = {"pyproject.toml": declared, "bot/pyproject.toml": TABLE, "bot/.env": NONE}
    code, out, errors = check(files, "--no-import")
    assert (code, errors) == (0, [])
    [note] = [line for line in out if "note" in line]
    assert note.startswith(
        "b: note: runs the same project as a, with the same entry and env: probably the same bot twice"
    )
    assert 'env = { ENVIRONMENT = "b" } in [tool.lycomm.processes.b]' in note
    files["pyproject.toml"] += "env = { ENVIRONMENT = 'b' }\n"
    code, out, _ = check(files, "--no-import")
    assert code == 0
    assert "b: note: runs the same project as a, with another entry or env" in out


@pytest.mark.skipif(sys.platform == "win32", reason="the interpreter is a shell script here")
@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ('{"version": "9.9", "protocol": 99, "unfit": []}', 1, "has lycomm 9.9 now, this host runs lycomm"),
        ('{"version": "9.9", "protocol": 1, "unfit": []}', 1, "has lycomm 9.9 now, this host runs lycomm"),
        ('{"version": "9.9", "protocol": 0, "unfit": ["no good"]}', 1, "no good"),
        ("{", 1, "cannot be asked about the project: it exited 0 (another version of lycomm?"),
        ("[]", 1, "cannot be asked about the project: it exited 0"),
    ],
)
def test_a_bot_whose_lycomm_is_another_one(check: Check, project: Path, answer: str, code: int, words: str) -> None:
    python = project / "my-python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *_child.survey*) echo \'{answer}\'; exit;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    declared = f"{TABLE}[tool.lycomm.processes.a]\npython = './my-python'\n"
    got, _, errors = check({"pyproject.toml": declared, ".env": NONE})
    assert got == code
    assert words in errors[0]


def test_an_interpreter_that_never_answers_is_given_up(
    check: Check, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liteyuki_host.examination.bot.SURVEY_SECONDS", 0.2)
    monkeypatch.setattr("liteyuki_host.supervisor.hiding.SECONDS", 0.2)  # asks it too, for half a minute
    [line] = faults(check, {"pyproject.toml": TABLE, ".env": NONE, "dotenv/__init__.py": "while True: pass\n"})
    assert line.endswith("cannot be asked about the project: no answer in 0.2 s")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_a_log_file_that_takes_no_lines(check: Check, project: Path) -> None:
    (project / "logs").mkdir()
    os.mkfifo(project / "logs" / "nonebot.log")
    (project / "logs" / "host.log").symlink_to(os.devnull)
    code, out, errors = check({"pyproject.toml": f"{TABLE}[tool.lycomm]\nlog_dir = 'logs'\n", ".env": NONE})
    assert (code, errors) == (0, [])
    assert out[0] == (
        f"host: note: log file {project / 'logs' / 'nonebot.log'} cannot be written: it is a FIFO (named pipe), not a "
        "file; the host would go on without it"
    )
    assert len(out) == 2


def test_a_folder_called_dotenv_is_a_note(check: Check, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".env").mkdir()
    monkeypatch.setenv("DRIVER", "~none")
    code, out, errors = check({"pyproject.toml": TABLE})
    assert (code, errors) == (0, [])
    assert "nonebot: note: .env is a folder: NoneBot reads no settings from it" in out


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_a_survey_ends_with_the_check_that_asked(project: Path) -> None:
    """However that ends."""
    (project / "pyproject.toml").write_text(TABLE)
    (project / "dotenv").mkdir()
    (project / "dotenv" / "__init__.py").write_text(
        "import os\nprint(os.getpid(), file=open('pid.tmp', 'w'))\nos.rename('pid.tmp', 'pid')\nwhile True: pass\n"
    )
    asker = subprocess.Popen([sys.executable, "-m", "liteyuki_host", "check"], cwd=project)
    survey = psutil.Process(int(eventually(lambda: (project / "pid").exists() and (project / "pid").read_text())))
    asker.kill()
    asker.wait()
    psutil.wait_procs([survey], timeout=20)
    assert not survey.is_running() or survey.status() == psutil.STATUS_ZOMBIE


def eventually(look: Callable[[], object]) -> str:
    deadline = time.monotonic() + 20
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a file of the other process
    return str(found)


def test_modules_and_log_files_of_the_host(check: Check, project: Path) -> None:
    files = {
        "pyproject.toml": f"{TABLE}[tool.lycomm]\nplugins = ['mine.x', 'json', 'not_there']\nlog_dir = 'file/logs'\n",
        ".env": NONE,
        "mine.py": "",
        "file": "",
    }
    code, out, errors = check(files)
    assert code == 1
    assert errors == [
        f"host: plugins: there is no module not_there: correct its name, or put not_there.py into {project}"
    ]
    assert out[0] == f"host: note: log_dir: {project / 'file'} is a file; the host would go on without log files"


@pytest.mark.parametrize("kind", ["script", "toml"])
@pytest.mark.parametrize("name", ["nonebot.py", "liteyuki_host.py", "typing.py", "fastapi.py", "nonebot/__init__.py"])
def test_a_file_that_hides_a_package(check: Check, project: Path, name: str, kind: str) -> None:
    files = {"bot.py": BOT} if kind == "script" else {"pyproject.toml": TABLE}
    [line] = faults(check, {**files, name: ""})
    path = project / name.removesuffix("/__init__.py")
    assert line.startswith(f"nonebot: {path} hides ")
    assert line.endswith(f": give the {'file' if path.suffix else 'folder'} another name")


def test_a_file_that_hides_something_that_nobody_needs_is_no_matter(check: Check) -> None:
    code, out, errors = check({"pyproject.toml": TABLE, ".env": NONE, "turtle.py": "1 / 0\n", "this.py": ""})
    assert (code, errors, len(out)) == (0, [], 1)


@pytest.mark.skipif(sys.platform == "win32", reason="the interpreter is a shell script here")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\nexit 0\n", "is no Python interpreter that answers: correct python in [tool.lycomm.processes]"),
        ("#!/bin/sh\nexit 1\n", "is no Python interpreter that answers"),
        ("#!/bin/sh\nyes\n", "is no Python interpreter that answers"),
        ("#!/bin/sh\nexec sleep 60\n", "did not answer in 1 s"),
        ("\0hello\n", "is no Python interpreter that answers"),
    ],
    ids=["true", "false", "yes", "sleep", "text"],
)
def test_a_program_that_is_no_interpreter(
    check: Check, project: Path, script: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liteyuki_host.supervisor.process.PROBE_SECONDS", 1.0 if "sleep" in script else 30.0)
    (project / "program").write_text(script)
    (project / "program").chmod(0o755)
    declared = f"{TABLE}[tool.lycomm.processes.a]\npython = './program'\n"
    [line] = faults(check, {"pyproject.toml": declared, ".env": NONE})
    assert line.startswith(f"a: {project / 'program'} {words}")


@pytest.mark.parametrize("option", [(), ("--no-import",)], ids=["import", "no import"])
@pytest.mark.parametrize("kind", ["script", "toml"])
def test_a_wrong_log_level(check: Check, kind: str, option: tuple[str, ...]) -> None:
    """NoneBot takes it, and prints a traceback in place of each line of the log."""
    files = {"bot.py": BOT} if kind == "script" else {"pyproject.toml": TABLE}
    assert faults(check, {**files, ".env": f"{NONE}LOG_LEVEL=LOUD\n"}, *option) == [
        "nonebot: LOG_LEVEL in .env: 'LOUD': expected one of TRACE, DEBUG, INFO, SUCCESS, WARNING, ERROR, CRITICAL, "
        "or a number; INFO is used instead"
    ]


def test_a_log_level_of_the_bots_own_is_good(check: Check) -> None:
    bot = BOT.replace("nonebot.run", "nonebot.logger.level('LOUD', no=15)\nnonebot.run")
    assert check({"bot.py": bot, ".env": f"{NONE}LOG_LEVEL=LOUD\n"})[0] == 0


MISTYPED = "nonebot: note: PROT in .env: NoneBot has no such setting; did you mean PORT?"


@pytest.mark.parametrize("option", [(), ("--no-import",)], ids=["import", "no import"])
@pytest.mark.parametrize("kind", ["script", "table"])
def test_a_mistyped_setting_is_a_note(check: Check, kind: str, option: tuple[str, ...]) -> None:
    files = {"bot.py": BOT} if kind == "script" else {"pyproject.toml": TABLE}
    code, out, errors = check({**files, ".env": f"{NONE}PROT=8090\n"}, *option)
    assert (code, errors) == (0, [])
    assert MISTYPED in out


def test_a_mistyped_setting_is_a_note_beside_what_keeps_the_bot_from_starting(check: Check) -> None:
    code, out, _ = check({"pyproject.toml": TABLE, ".env": f"{NONE}PROT=8090\nSUPERUSERS=[\n"})
    assert code == 1
    assert MISTYPED in out


@pytest.mark.parametrize("how", ["plugin", "init", "config"])
def test_a_name_that_the_bot_knows_was_not_mistyped(check: Check, how: str) -> None:
    plugin = """
        from nonebot import get_plugin_config
        from pydantic import BaseModel

        class Config(BaseModel):
            prot: int

        config = get_plugin_config(Config)
        """
    bots = {
        "plugin": BOT.replace("nonebot.run", "assert nonebot.load_plugin('mine')\nnonebot.run"),
        "init": BOT.replace("init()", "init(port=8090)"),
        "config": BOT.replace("nonebot.run", "nonebot.get_driver().config.port = 8090\nnonebot.run"),
    }
    code, out, errors = check({"bot.py": bots[how], "mine.py": plugin, ".env": f"{NONE}PROT=8090\n"})
    assert (code, errors) == (0, [])
    assert "PROT" not in "".join(out)


def test_a_log_level_in_env_of_a_process_is_told_with_that_place(check: Check) -> None:
    declared = f"{TABLE}[tool.lycomm.processes.a]\nenv = {{ LOG_LEVEL = 'loud' }}\n"
    [line] = faults(check, {"pyproject.toml": declared, ".env": NONE})
    assert line.startswith("a: LOG_LEVEL in env of [tool.lycomm.processes.a]: 'loud': expected one of")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ONEBOT_V11_ACCESS_TOKEN=[1]", "ONEBOT_V11_ACCESS_TOKEN in .env: [1]: expected text"),
        ("ONEBOT_V11_WS_URLS=abc", "ONEBOT_V11_WS_URLS in .env: 'abc' is not JSON; write it like"),
        ("ONEBOT_WS_URLS=abc", "ONEBOT_WS_URLS in .env: 'abc' is not JSON"),
        ('ONEBOT_V11_API_ROOTS=["a"]', "ONEBOT_V11_API_ROOTS in .env: ['a']: expected a table"),
        ("FASTAPI_RELOAD=maybe", "FASTAPI_RELOAD in .env: 'maybe': expected true or false"),
    ],
)
def test_settings_of_an_adapter_or_a_driver(check: Check, text: str, words: str, port: int) -> None:
    table = f'{TABLE}adapters = [{{ name = "x", module_name = "nonebot.adapters.onebot.v11" }}]\n'
    [line] = faults(check, {"pyproject.toml": table, ".env": f"DRIVER=~fastapi+~httpx\nPORT={port}\n{text}\n"})
    assert line.startswith(f"nonebot: {words}")


def test_two_plugins_of_one_name(check: Check) -> None:
    [line] = faults(
        check, {"pyproject.toml": f"{TABLE}plugins = ['a.x', 'b.x']\n", ".env": NONE, "a/x.py": "", "b/x.py": ""}
    )
    assert line == (
        "nonebot: [tool.nonebot] in pyproject.toml: two plugins have the name 'x', which is the last part of the "
        "module's name: remove one"
    )
