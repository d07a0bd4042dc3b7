"""What the pages state is so: settings, commands, links, values, protocol, log lines."""

from __future__ import annotations

import ast
import datetime
import json
import re
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from liteyuki_host.comm import codec, errors
from liteyuki_host.comm.protocol import frames, messages, streams
from liteyuki_host.comm.protocol.states import TRANSITIONS, Input, State
from liteyuki_host.comm.storage import store
from liteyuki_host.settings import load_settings
from liteyuki_host.supervisor.exits import describe_exit
from liteyuki_host.supervisor.states import State as ProcessState
from tests.docs.lines import ANY, findings, losses, reasons
from tests.docs.logged import built_texts, lines_of_the_log, log_calls, unknown_sources, unused_sources
from tests.docs.pages import PAGES, ROOT, blocks, code_in, table_rows, without_blocks
from tests.docs.settings_texts import GENERATED, Setting, all_settings, generated, problems_of_texts
from tests.values.adapter_events import TRIED

READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
DOCS = ROOT / "docs"

# Settings and commands


def test_every_setting_has_a_text_in_both_languages() -> None:
    assert not (problems := problems_of_texts()), "\n".join(problems)


@pytest.mark.parametrize("name", GENERATED)
def test_what_is_generated_is_written(name: str) -> None:
    assert (ROOT / name).read_text("utf-8") == generated(name), f"{name} is out of date: python -m tests.docs.write"


def _settings_of(readme: Path) -> dict[str, str]:
    """The name and default of each setting in the tables."""
    names = {setting.shown_name for setting in all_settings()}
    return {name: code_in(row[2]) for row in table_rows(readme) if len(row) == 5 and (name := code_in(row[0])) in names}


@pytest.mark.parametrize("setting", all_settings(), ids=lambda setting: setting.shown_name)
def test_a_default_in_the_tables_is_what_a_user_may_write(setting: Setting) -> None:
    text = _settings_of(READMES[0])[setting.shown_name]
    if setting.group in ("host", "supervision"):
        given = load_settings({}, folder=ROOT / "docs", environ={setting.shown_name: text})
        assert getattr(given, setting.name) == setting.field.default
    else:
        assert (json.loads(text) if text else None) == setting.field.default


def test_both_readmes_have_the_same_settings_and_commands() -> None:
    english, chinese = READMES
    assert _settings_of(english) == _settings_of(chinese)
    for language in ("bash", "powershell", "toml"):
        both = [[b.marker for b in blocks(page) if b.language == language] for page in READMES]
        assert both[0] == both[1]
    bash = [[b.code for b in blocks(page) if b.language == "bash"] for page in READMES]
    assert bash[0] == bash[1]
    chat = [[row[0] for row in table_rows(page) if row[0].startswith("`/")] for page in READMES]
    assert chat[0] == chat[1] != []


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
def test_a_readme_has_exactly_two_set_up_commands_and_ci_can_extract_them(readme: Path) -> None:
    setup = {block.file: block.code.strip() for block in blocks(readme) if block.kind == "setup"}
    assert list(setup) == ["run", "run-windows", "test", "test-windows"]
    for name in ("run", "test"):
        words = setup[f"{name}-windows"].replace("\\", "/").replace(";", " &&")
        assert words.replace("py -m", "python3 -m").replace("Scripts", "bin") == setup[name]
    for name, command in setup.items():
        found = subprocess.run(
            [sys.executable, str(ROOT / ".ci" / "readme-command"), name, str(readme)],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        assert found.stdout.strip() == command
    chat_names = {name for name in _settings_of(readme) if name.endswith("_COMMAND")}
    text = readme.read_text("utf-8")
    for name in chat_names:
        for alias in json.loads(_settings_of(readme)[name]):
            assert f"`/{alias}`" in text


def test_the_readmes_link_to_each_other_at_the_top() -> None:
    english, chinese = (page.read_text("utf-8") for page in READMES)
    assert "(README.zh-CN.md)" in english[: english.index("\n## ")]
    assert "(README.md)" in chinese[: chinese.index("\n## ")]


def test_the_install_section_does_not_touch_bot_py() -> None:
    """A rule of the plugin store."""
    for readme in READMES:
        install = re.search(r"\n## 💿.*?(?=\n## )", readme.read_text("utf-8"), re.DOTALL)
        assert install
        assert "bot.py" not in install[0]
        assert "nb plugin install nonebot-plugin-lycomm" in install[0]


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
def test_each_way_to_name_the_plugin_makes_nonebot_load_it(readme: Path, tmp_path: Path) -> None:
    ways = [
        block.code for block in blocks(readme) if "nonebot_plugin_lycomm" in block.code and block.language == "toml"
    ]
    assert len(ways) == 2, "a table, and a list"
    for way in ways:
        (tmp_path / "pyproject.toml").write_text(way, "utf-8")
        load = "n.init(driver='~none'); n.load_from_toml('pyproject.toml'); print(n.get_loaded_plugins())"
        code = f"import nonebot as n; {load}"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert "name='nonebot_plugin_lycomm'" in done.stdout, done.stdout + done.stderr


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name}: {target}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"`", "", heading).lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_path_of_some_machine(page: Path) -> None:
    assert not re.search(r"/(home|root|tmp|work|Users)/", page.read_text("utf-8"))


# Values


VALUES = [DOCS / "values.md", DOCS / "values.zh-CN.md"]


def _names_of_values(page: Path) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "values"}
    sys.modules["values"] = type(sys)("values")  # pydantic looks its module up
    try:
        for block in blocks(page):
            if block.language == "python":
                exec(block.code, names)
    finally:
        del sys.modules["values"]
    names["nested"] = lambda depth: [] if depth == 1 else [names["nested"](depth - 1)]
    return names


def _value_rows(page: Path, kind: str) -> Iterator[list[str]]:
    """The rows of one of the tables: "travels", "refused", "refused by type" or "adapters"."""
    for row in table_rows(page):
        cells = [code_in(cell) or cell for cell in row]
        if len(row) == 4:
            found = "adapters" if cells[0] in TRIED else "travels"
        else:
            found = "refused" if cells[1] in errors.__all__ else "refused by type"
        if found == kind:
            yield cells


def test_both_pages_of_values_show_the_same() -> None:
    for kind, least in (("travels", 40), ("refused", 15), ("refused by type", 6), ("adapters", 33)):
        english, chinese = (list(_value_rows(page, kind)) for page in VALUES)
        if kind == "adapters":
            words = {"yes": "是", "no": "否"}
            english = [[words.get(cell, cell) for cell in row] for row in english]
        assert len(english) >= least, kind
        assert english == chinese
    code = [[block.code for block in blocks(page)] for page in VALUES]
    assert code[0] == code[1]
    assert all(f"]({other.name})" in page.read_text("utf-8")[:80] for page, other in (VALUES, VALUES[::-1]))


@pytest.mark.parametrize("page", VALUES, ids=lambda page: page.name)
def test_no_page_of_values_says_a_thing_twice(page: Path) -> None:
    rows = [tuple(row) for row in table_rows(page)]
    lines = [line for block in blocks(page) if block.language == "python" for line in block.code.splitlines()]
    defined = [line for line in lines if re.match(r"class |def |import |from ", line)]
    for things in (rows, defined):
        assert [thing for thing, count in Counter(things).items() if count > 1] == []


@pytest.mark.parametrize("page", VALUES, ids=lambda page: page.name)
def test_what_the_table_of_values_sends_arrives_as_it_says(page: Path) -> None:
    names = _names_of_values(page)
    for sent, plain, kind, typed in _value_rows(page, "travels"):
        payload = codec.encode(eval(sent, names))
        assert _same(codec.decode(payload), eval(plain, names)), sent
        if kind:
            wanted = eval(kind.replace("str | None", "__import__('typing').Optional[str]"), names)
            assert _same(codec.TypedDecoder(wanted).decode(payload), eval(typed, names)), f"{sent} as {kind}"


def _same(one: object, other: object) -> bool:
    if isinstance(one, datetime.datetime) and isinstance(other, datetime.datetime):
        return one == other and one.utcoffset() == other.utcoffset()
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("page", VALUES, ids=lambda page: page.name)
def test_what_the_tables_of_refused_values_send_is_refused_as_they_say(page: Path) -> None:
    names = _names_of_values(page)
    for sent, error, words in _value_rows(page, "refused"):
        with pytest.raises(getattr(errors, error)) as raised:
            _send(eval(sent, names))
        assert words in str(raised.value), sent
    for sent, kind, words in _value_rows(page, "refused by type"):
        with pytest.raises(errors.ValueRefused) as raised:
            _send(eval(sent, names), eval(kind, names))
        assert words.replace("'", "`") in str(raised.value).replace("'", "`"), sent


def _send(value: object, kind: Any = None) -> None:
    from liteyuki_host.comm.testing import connected_pair

    with connected_pair() as pair:
        pair.host_channel("nonebot-passive", kind).send(value)


def test_the_errors_of_the_communication_page_are_those_of_the_tree() -> None:
    rows = [row for row in table_rows(DOCS / "communication.md") if len(row) == 3]
    shown = {match[1]: match[2] for row in rows if (match := re.fullmatch(r"`(\w+)`(?: \(an? `(\w+)`\))?", row[0]))}
    for name, builtin in shown.items():
        kind = getattr(errors, name)
        assert issubclass(kind, errors.LycommError)
        bases = {base.__name__ for base in kind.__mro__} & {"KeyError", "TypeError", "ValueError", "TimeoutError"}
        assert bases == ({builtin} if builtin else set()), name
    branches = {base for name in errors.__all__ for base in getattr(errors, name).__bases__}
    leaves = {name for name in errors.__all__ if getattr(errors, name) not in branches}
    not_for_users = {"LocalProtocolError", "RemoteProtocolError", "LinkClosed", "LinkBroken", "LockNotHeld"}
    assert leaves - set(shown) == not_for_users


# The protocol

PROTOCOL = DOCS / "protocol.md"


def _protocol_rows(*first: str) -> list[list[str]]:
    return [row for row in table_rows(PROTOCOL) if code_in(row[0]) in first]


def numbers_of(kind: type) -> dict[str, int]:
    return {name: number for name, number in vars(kind).items() if name.isupper()}


def test_frame_kinds_and_flags_are_those_of_the_page() -> None:
    for numbers in (numbers_of(frames.Kind), numbers_of(frames.Flag)):
        shown = {code_in(row[0]): int(row[1]) for row in _protocol_rows(*numbers)}
        assert shown == numbers
    text = PROTOCOL.read_text("utf-8")
    assert frames.HEADER.format == "!IBBHI"
    assert f"{frames.MAX_FRAME_PAYLOAD:,}" in text
    assert f"The link protocol, version {messages.PROTOCOL_VERSION}" in text
    assert streams.MAX_STREAMS - 1 == 65535


@pytest.mark.parametrize(
    "union", [messages.Control, messages.Request, messages.Event], ids=["control", "requests", "events"]
)
def test_messages_are_those_of_the_page(union: Any) -> None:
    for kind in union.__args__:
        info = msgspec.inspect.type_info(kind)
        assert isinstance(info, msgspec.inspect.StructType)
        (row,) = _protocol_rows(kind.__name__)
        assert row[1] == str(info.tag), kind
        assert row[2] == ", ".join(field.name for field in info.fields), kind
    unions: tuple[Any, ...] = (messages.Control, messages.Request, messages.Event)
    names = {kind.__name__ for any_union in unions for kind in any_union.__args__}
    shown = {code_in(row[0]) for row in table_rows(PROTOCOL) if len(row) > 2 and row[1].isdigit()}
    assert shown - names == numbers_of(frames.Kind).keys() | numbers_of(frames.Flag)


def test_the_course_of_a_link_is_the_table_of_states() -> None:
    inputs = [Input.HELLO, Input.TRAFFIC, Input.GOODBYE, Input.EOF]
    states = {state.value for state in State}
    shown = {row[0]: row[1:] for row in table_rows(PROTOCOL) if row[0] in states}
    for state in (State.GREETING, State.OPEN, State.CLOSING):
        following = [TRANSITIONS.get((state, given)) for given in inputs]
        assert shown[state.value] == ["error" if to is None else to.value for to in following]


def test_the_refusals_are_those_of_the_page() -> None:
    # HOST_GONE is what a process tells itself; it is on no wire.
    codes = {value for name, value in vars(store.Refusal).items() if name.isupper() and name != "HOST_GONE"}
    assert {code_in(row[0]) for row in _protocol_rows(*codes)} == codes


# Operations

OPERATIONS = [DOCS / "operations.md", DOCS / "operations.zh-CN.md"]


def _explained_lines(page: Path) -> list[str]:
    return [line for row in table_rows(page) if len(row) >= 2 and (line := code_in(row[0]))]


def _fits(pattern: str, line: str) -> bool:
    return re.fullmatch(pattern.replace("`", ""), line) is not None


@pytest.mark.parametrize("page", OPERATIONS, ids=lambda page: page.name)
def test_every_line_that_the_host_can_say_is_explained(page: Path) -> None:
    explained = _explained_lines(page)
    unexplained = [
        f"{place}: {pattern.replace('(?:.*)', '…')}".replace("\\", "")
        for place, pattern in [*lines_of_the_log(), *reasons(), *findings(), *losses()]
        if not any(_fits(pattern, line) for line in explained)
    ]
    assert not unexplained, f"{page.name} does not explain:\n" + "\n".join(unexplained)


def test_the_source_of_every_logged_text_is_known() -> None:
    unknown = unknown_sources()
    assert not unknown, "say in tests/docs/logged.py which function builds:\n" + "\n".join(unknown)
    assert not (unused := unused_sources()), f"nothing logs any more what tests/docs/logged.py names: {unused}"


@pytest.mark.parametrize("page", OPERATIONS, ids=lambda page: page.name)
def test_every_text_that_a_function_builds_is_explained(page: Path) -> None:
    explained = _explained_lines(page)
    unexplained = [
        f"{place}: {pattern.replace(ANY, '…')}".replace("\\", "")
        for place, pattern in built_texts()
        if not any(re.search(pattern.replace("`", ""), line) for line in explained)
    ]
    assert not unexplained, f"{page.name} explains no line with:\n" + "\n".join(unexplained)


@pytest.mark.parametrize("page", OPERATIONS, ids=lambda page: page.name)
def test_every_explained_line_can_be_said(page: Path) -> None:
    patterns = [pattern for _, pattern in [*lines_of_the_log(), *built_texts(), *reasons(), *findings(), *losses()]]
    patterns += [pattern for call in log_calls() for pattern in call.built]
    lines = [line for line in _explained_lines(page) if line.count(" ") > 1 and not line.startswith("lycomm")]
    unsaid = [line for line in lines if not any(_fits(pattern, line) for pattern in patterns)]
    assert not unsaid, "nothing says any more:\n" + "\n".join(unsaid)


@pytest.mark.parametrize("page", OPERATIONS, ids=lambda page: page.name)
def test_the_ends_of_processes_are_put_into_these_words(page: Path) -> None:
    rows = [row for row in table_rows(page) if re.fullmatch(r"`-?\d+`", row[0])]
    assert rows
    for code, words, _ in rows:
        assert describe_exit(int(code_in(code)), platform="linux") == code_in(words)


# Architecture, changes, contributing


def test_the_files_that_contributing_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`([\w./-]+/[\w./-]+)`", text)) - {".venv/bin", ".ci/run"}
    assert len(named) > 20
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_contributing_is_one_page() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 60


@pytest.mark.parametrize("page", OPERATIONS, ids=lambda page: page.name)
def test_every_state_of_a_process_is_explained(page: Path) -> None:
    states = {str(state) for state in ProcessState}
    assert {code for row in table_rows(page) if (code := code_in(row[0])) in states} == states
    # By its file: NoneBot refuses to load a plugin that was imported before, and other tests want to load it.
    assert runpy.run_path(str(ROOT / "nonebot_plugin_lycomm" / "texts.py"))["STATES"].keys() == states


def test_every_room_is_on_the_architecture_page() -> None:
    text = (DOCS / "architecture.md").read_text("utf-8")
    package = ROOT / "liteyuki_host"
    rooms = [path.parent for path in package.rglob("__init__.py") if path.parent != package]
    files = [path for path in package.glob("*.py") if not path.name.startswith("__") and path.name != "_version.py"]
    for path in [*rooms, *files]:
        assert f"(../{path.relative_to(ROOT).as_posix()})" in text, path.name


def test_the_migration_page_names_only_what_exists() -> None:
    import liteyuki_host
    from liteyuki_host import comm

    known = {"liteyuki_host": set(liteyuki_host.__all__), "liteyuki_host.comm": set(comm.__all__)}
    tree = ast.parse((ROOT / "nonebot_plugin_lycomm" / "__init__.py").read_text("utf-8"))
    (names,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    known["nonebot_plugin_lycomm"] = set(names)
    text = (DOCS / "migration.md").read_text("utf-8")
    found = re.findall(r"`from (liteyuki_host|liteyuki_host\.comm|nonebot_plugin_lycomm) import ([\w, ]+)`", text)
    assert len(found) >= 4
    for module, imported in found:
        assert set(imported.split(", ")) <= known[module], f"from {module} import {imported}"


def test_the_changelog_has_an_entry_for_this_version() -> None:
    from liteyuki_host import __version__

    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(rf"^## (Unreleased|{re.escape(__version__)})", text, re.MULTILINE)
    assert "### Added" in text
