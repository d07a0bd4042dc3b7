"""What the other matchers of this bot answer, read from their rules without running them.

A rule may do anything when it runs (count a call, ask a server), so it is only looked at. NoneBot's own text
rules and those of nonebot-plugin-alconna are known; a rule of any other kind answers nothing as far as this
module can tell.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Container, Iterator
from itertools import product
from typing import Any

from nonebot import get_driver
from nonebot.matcher import Matcher, matchers
from nonebot.rule import (
    CommandRule,
    EndswithRule,
    FullmatchRule,
    KeywordsRule,
    RegexRule,
    ShellCommandRule,
    StartswithRule,
)

__all__ = ["owner_of"]


def owner_of(text: str, *, control: str, ours: Container[type[Matcher]]) -> str | None:
    """Find a matcher that answers the message *text*. Returns its plugin's name; None when there is none.

    Args:
        control: another message. A matcher that answers this one too takes every message, as a chat model does,
            and has no command of its own.
        ours: matchers that do not count.
    """
    for matcher in _message_matchers():
        if matcher not in ours and _answers(matcher, text) and not _answers(matcher, control):
            return matcher.plugin_id or matcher.module_name or "this bot"
    return None


def _message_matchers() -> Iterator[type[Matcher]]:
    for priority in sorted(matchers):
        for matcher in list(matchers[priority]):
            if matcher.type in ("", "message"):
                yield matcher


def _answers(matcher: type[Matcher], text: str) -> bool:
    """Whether the matcher has a rule about the text of messages, and all such rules accept *text*."""
    verdicts = [verdict for checker in matcher.rule.checkers if (verdict := _verdict(checker.call, text)) is not None]
    return bool(verdicts) and all(verdicts)


def _verdict(rule: object, text: str) -> bool | None:
    """Whether one checker accepts *text*; None when it is not about text, or cannot be read."""
    look = _LOOKS.get(type(rule)) or (_alconna if type(rule).__name__ == "AlconnaRule" else None)
    if look is None:
        return None
    try:
        return look(rule, text)
    except Exception:  # another version of the rule, or arguments that the rule itself would fail with
        return None


def _command(rule: Any, text: str) -> bool:
    config = get_driver().config
    for command in rule.cmds:
        separators = config.command_sep if len(command) > 1 else ("",)
        for start, separator in product(config.command_start, separators):
            name = f"{start}{separator.join(command)}"
            if text.startswith(name) and (len(text) == len(name) or text[len(name)].isspace()):
                return True
    return False


def _startswith(rule: Any, text: str) -> bool:
    return _folded(rule, text).startswith(tuple(_folded(rule, start) for start in rule.msg))


def _endswith(rule: Any, text: str) -> bool:
    return _folded(rule, text).endswith(tuple(_folded(rule, end) for end in rule.msg))


def _fullmatch(rule: Any, text: str) -> bool:
    return _folded(rule, text) in rule.msg  # the rule has folded its own texts


def _folded(rule: Any, text: str) -> str:
    return text.casefold() if rule.ignorecase else text


def _keywords(rule: Any, text: str) -> bool:
    return any(word in text for word in rule.keywords)


def _regex(rule: Any, text: str) -> bool:
    return re.search(rule.regex, text, rule.flags) is not None


def _alconna(rule: Any, text: str) -> bool:
    command = rule.command if not callable(rule.command) else rule.command()
    manager = sys.modules["arclet.alconna"].command_manager  # loaded, or there would be no such rule
    head = manager.require(command).command_header.content
    if isinstance(head, re.Pattern):
        found = head.fullmatch(text) is not None
    else:
        found = isinstance(head, (set, frozenset)) and text in head
    return found or any(_shortcut(key, shortcut, text) for key, shortcut in manager.get_shortcut(command).items())


def _shortcut(key: str, shortcut: object, text: str) -> bool:
    prefixes = getattr(shortcut, "prefixes", None) or [""]
    return any(re.fullmatch(re.escape(prefix) + key, text) for prefix in prefixes)


_LOOKS: dict[type, Callable[[Any, str], bool]] = {
    CommandRule: _command,
    ShellCommandRule: _command,
    StartswithRule: _startswith,
    EndswithRule: _endswith,
    FullmatchRule: _fullmatch,
    KeywordsRule: _keywords,
    RegexRule: _regex,
}
