"""What is wrong with a project is one clear line that names the culprit and the remedy."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest
from kit import free_port, host_process, write

pytestmark = pytest.mark.e2e

BOT = "import nonebot\nnonebot.init()\nnonebot.run()\n"
TOML = "[tool.nonebot]\nplugins = []\nadapters = []\n"


def only_error(folder: Path, pattern: str, **environment: str) -> str:
    """Run a host until the line comes; check that it ends by itself, and so that a service manager sees it."""
    with host_process(folder, **environment) as host:
        line = host.wait_for(pattern, timeout=20)[0]
        assert host.wait() == 1
        return line


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": '[tool.lycomm.processes.bot]\nproject = "nowhere"\n'})
    line = only_error(tmp_path, r"\[ERROR\] host .*nowhere")
    assert "does not exist" in line


def test_a_folder_without_a_bot(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": '[project]\nname = "empty"\n'})
    line = only_error(tmp_path, r"\[ERROR\] host")
    assert "bot.py" in line
    assert "[tool.nonebot]" in line


def test_a_syntax_error_in_bot_py(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": "import nonebot\ndef (:\n"})
    line = only_error(tmp_path, r"\[ERROR\] host .*bot\.py")
    assert "line 2" in line


def test_a_syntax_error_in_a_plugin(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"pyproject.toml": TOML.replace("plugins = []", 'plugins = ["broken"]'), "broken.py": "x = (\n"},
    )
    with host_process(tmp_path, DRIVER="~none") as host:
        host.wait_for(r"broken\.py.*line 1")
        host.wait_for("child nonebot ready")  # as under `nb run`: one bad plugin does not end the bot
        assert host.stop() == 0


def test_a_missing_adapter(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pyproject.toml": "[tool.nonebot]\nplugins = []\n"
            'adapters = [{ name = "Nope", module_name = "nonebot.adapters.nope" }]\n'
        },
    )
    line = only_error(tmp_path, r"nonebot\.adapters\.nope", DRIVER="~none")
    assert "install" in line


def test_a_port_in_use(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": BOT})
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        line = only_error(tmp_path, rf"{port}.*(in use|taken|another)", PORT=str(port), DRIVER="~fastapi")
    assert str(port) in line


def test_a_dotenv_that_is_not_utf_8(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": BOT})
    (tmp_path / ".env").write_bytes("NICKNAME=机器人\n".encode("gbk"))
    with host_process(tmp_path) as host:
        assert host.wait() == 2
        (line,) = [line for line in host.lines if line.strip()]
        assert ".env" in line
        assert "UTF-8" in line


def test_wrong_settings_are_one_line_each(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pyproject.toml": '[tool.lycomm]\nstop_timeot = 3\n[tool.lycomm.processes.host]\nproject = "."\n',
            ".env": "LYCOMM_READY_TIMEOUT=soon\n",
        },
    )
    with host_process(tmp_path, LYCOMM_LOG_LEVEL="LOUD") as host:
        assert host.wait() == 2
        assert len(host.lines) == 4
        assert "stop_timeout" in host.text  # did you mean


def test_a_main_process_module_that_cannot_be_loaded(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": BOT, "mine.py": "import nothing_like_this\n"})
    with host_process(tmp_path, LYCOMM_PLUGINS="mine") as host:
        assert host.wait() != 0
        assert "module 'mine' of the host cannot be loaded: ModuleNotFoundError" in host.text
        assert "mine.py line 1" in host.text
        assert "Traceback" not in host.text


def test_a_main_process_module_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, {"bot.py": BOT})
    with host_process(tmp_path, LYCOMM_PLUGINS="mine") as host:
        assert host.wait() != 0
        assert f"no module 'mine' for the host: correct its name, or put mine.py into {tmp_path}" in host.text


@pytest.mark.parametrize("kind", ["script", "toml"])
def test_a_value_that_nonebot_refuses_is_one_line_and_final(tmp_path: Path, kind: str) -> None:
    """It used to be a traceback of forty lines, ten times in five minutes."""
    files = {"bot.py": BOT} if kind == "script" else {"pyproject.toml": TOML}
    write(tmp_path, {**files, ".env": "DRIVER=~none\nSUPERUSERS=[1,\nPORT=abc\n"})
    with host_process(tmp_path) as host:
        line = host.wait_for(r"\[ERROR\] nonebot .*SUPERUSERS in \.env: '\[1,' is not JSON")[0]
        assert "PORT in .env: 'abc': expected a whole number" in line
        host.wait_for(r"nonebot cannot start: exited 78 before it was ready: PORT in \.env: .*SUPERUSERS in \.env")
        host.send(signal.SIGINT)
        host.wait()
        assert "Traceback" not in host.text


def test_a_bot_beside_pydantic_1_is_one_line_and_final(tmp_path: Path) -> None:
    declared = f"[tool.lycomm.processes.web.env]\nPYTHONPATH = '{tmp_path / 'packages'}'\n"
    write(tmp_path, {"pyproject.toml": TOML + declared, "packages/pydantic/__init__.py": 'VERSION = "1.10.27"\n'})
    with host_process(tmp_path) as host:
        host.wait_for("web: pydantic 1.10.27 is installed, and lycomm needs pydantic 2: run `")
        host.wait_for("child web cannot start: exited 78 before it was ready: pydantic 1.10.27 is installed")
        host.send(signal.SIGINT)
        host.wait()
        assert "Traceback" not in host.text


@pytest.mark.skipif(sys.platform == "win32", reason="a program without a line of its own")
def test_a_program_that_takes_the_place_of_the_interpreter_and_starts_a_host(tmp_path: Path) -> None:
    """It waited for its bot, was killed after the ready timeout, and started again, for ever."""
    app = "import sys\nfrom liteyuki_host import Host\nprint('app', sys.argv[1:], flush=True)\nHost().run()\n"
    folder = write(tmp_path / "bot", {"app.py": app, "pyproject.toml": "[tool.nonebot]\n", ".env": "DRIVER=~none\n"})
    program = folder / "app"
    program.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} "$@"\nexec {sys.executable} app.py "$@"\n')
    program.chmod(0o755)
    with (folder / "pyproject.toml").open("a") as file:
        file.write(f'[tool.lycomm.processes.nonebot]\npython = "{program}"\n')
    with host_process(folder) as host:
        host.wait_for(
            r"^nonebot \| this program was started as the bot nonebot, but starts a host: "
            "python of its process must be a Python interpreter$"
        )
        host.wait_for("child nonebot cannot start: exited 78")
        assert host.wait() == 1
        assert host.text.count("nonebot | app") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="a program without a line of its own")
def test_a_program_that_is_no_interpreter_is_final(tmp_path: Path) -> None:
    program = tmp_path / "app"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    write(tmp_path, {"pyproject.toml": TOML + f'[tool.lycomm.processes.web]\npython = "{program}"\n'})
    with host_process(tmp_path) as host:
        host.wait_for(r"child web cannot start: .*/app is no Python interpreter that answers: correct python in")
        assert host.wait() == 1


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nonebot.py", "the package nonebot"),
        ("liteyuki_host.py", "the package liteyuki_host"),
        ("json.py", "Python's own module json"),
        ("queue.py", "Python's own module queue"),
    ],
)
def test_a_file_that_hides_a_package_is_final(tmp_path: Path, name: str, what: str) -> None:
    """It used to be ten starts, with a traceback each."""
    write(tmp_path, {"pyproject.toml": TOML, ".env": f"PORT={free_port()}\n", name: ""})
    # As a module, Python would run the file itself.
    command = [str(Path(sys.executable).with_name("lycomm")), "run"] if name == "liteyuki_host.py" else []
    with host_process(tmp_path, *command) as host:
        host.wait_for(
            rf"child nonebot cannot start: {tmp_path / name} hides {what}: give the file another name$", timeout=60
        )
        assert host.wait() == 1
        assert host.text.count("child nonebot started") == 1


ONEBOT = 'adapters = [{ name = "x", module_name = "nonebot.adapters.onebot.v11" }]\n'


@pytest.mark.parametrize(
    ("table", "text", "words"),
    [
        (ONEBOT, "ONEBOT_V11_WS_URLS=abc", r"ONEBOT_V11_WS_URLS in \.env: 'abc' is not JSON"),
        (ONEBOT, "ONEBOT_V11_ACCESS_TOKEN=[1]", r"ONEBOT_V11_ACCESS_TOKEN in \.env: \[1\]: expected text"),
        ("", "FASTAPI_RELOAD=maybe", r"FASTAPI_RELOAD in \.env: 'maybe': expected true or false"),
        ("plugins = ['a.x', 'b.x']", "", r"two plugins have the name 'x'"),
        ("plugins = [5]", "", r"plugins: 5 is not the name of a module"),
    ],
    ids=["not JSON", "not text", "driver", "a name twice", "no text"],
)
def test_what_no_new_start_cures_is_one_line_and_final(tmp_path: Path, table: str, text: str, words: str) -> None:
    env = f"DRIVER=~fastapi+~httpx\nPORT={free_port()}\n{text}\n"
    write(tmp_path, {"pyproject.toml": f"[tool.nonebot]\n{table}\n", ".env": env})
    with host_process(tmp_path) as host:
        host.wait_for(rf"\[ERROR\] nonebot .*{words}")
        host.wait_for("child nonebot cannot start: exited 78")
        assert host.wait() == 1
        assert "Traceback" not in host.text


def test_a_mistyped_setting_and_a_missing_plugin_are_told_at_the_start(tmp_path: Path) -> None:
    """The bot opened port 8080 and said no word; the plugin was named far above the line that says ready."""
    toml = TOML.replace("plugins = []", 'plugins = ["wether"]')
    assert toml != TOML
    write(tmp_path, {"pyproject.toml": toml, ".env": "DRIVER=~none\nPROT=8090\n"})
    with host_process(tmp_path) as host:
        host.wait_for(r"\[WARNING\] nonebot .*PROT in \.env: NoneBot has no such setting; did you mean PORT\?$")
        host.wait_for(
            r"\[WARNING\] host \| child nonebot runs without 1 plugin that could not be loaded: wether; "
            "its lines above say why$"
        )
        assert host.stop() == 0
        assert host.text.count("did you mean PORT") == host.text.count("child nonebot runs without") == 1


def test_a_bot_with_a_wrong_log_level_logs_as_if_it_were_info(tmp_path: Path) -> None:
    """It used to print a traceback in place of each line."""
    write(tmp_path, {"pyproject.toml": TOML, ".env": "DRIVER=~none\nLOG_LEVEL=LOUD\n"})
    with host_process(tmp_path) as host:
        host.wait_for(r"\[WARNING\] nonebot .*LOG_LEVEL in \.env: 'LOUD': expected one of .*; INFO is used instead")
        host.wait_for("child nonebot ready")
        host.wait_for(r"\[INFO\] nonebot .*Application startup completed")
        assert host.stop() == 0
        assert "Traceback" not in host.text
        assert host.text.count("INFO is used instead") == 1
