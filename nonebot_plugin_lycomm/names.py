"""The names of a chat command: which messages are that command, and which names other plugins have.

NoneBot's ``on_command`` is not used: it enters each name into one table for the whole bot, where an entry hides
shorter commands of other plugins (``/s`` no longer gets ``/statusquo``) and makes NoneBot warn about a duplicate
when a plugin that is loaded later has the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

from nonebot import get_driver
from nonebot.adapters import Event
from nonebot.log import logger
from nonebot.matcher import Matcher
from nonebot.params import Depends
from nonebot.typing import T_State

from nonebot_plugin_lycomm.others import owner_of

__all__ = ["Argument", "Names", "tell_taken"]

ARGUMENT_KEY = "_lycomm_argument"


class Names:
    """The names of one command: a message begins with one of them, followed by nothing or by white space.

    Args:
        names: without the bot's ``COMMAND_START``.
        setting: where the operator may change them; None when they are fixed.
        fallback: the form of the command that works under all circumstances, without ``COMMAND_START``. A name that
            another matcher of the bot has is left to it, and this is the form to use then. None: no name is left.
        ours: matchers of this plugin; they are not "another".
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        ours: set[type[Matcher]],
        setting: str | None = None,
        fallback: str | None = None,
    ) -> None:
        self.names = tuple(names)
        self._ours = ours
        self._setting = setting
        self._fallback = fallback
        self._told: set[str] = set()

    async def match(self, event: Event, state: T_State) -> bool:
        """Tell whether the message is the command, and keep its argument for `Argument`. For use as a rule."""
        message = event.get_message()
        if not message or not message[0].is_text():
            return False
        text = message.extract_plain_text().lstrip()
        for start, name in self._longest_first():
            argument = text[len(start + name) :]
            if text.startswith(start + name) and (not argument or argument[0].isspace()):
                # Asked at each message: a plugin may have been loaded, or unloaded, since the bot started.
                if self._fallback is not None and self._is_left_to_another(start, name, argument):
                    return False
                state[ARGUMENT_KEY] = argument.strip()
                return True
        return False

    def _is_left_to_another(self, start: str, name: str, argument: str) -> bool:
        """Whether another matcher has the name, or this longer command; the log tells each of both once."""
        if self._owner_of(start, name) is not None:
            tell_taken([self])
            return True
        owner = self._owner_of(start, name, argument) if argument.strip() else None
        if owner is None:
            return False
        longer = f"{start}{name} ..."  # not the argument: there is no end of those
        if longer not in self._told:
            self._told.add(longer)
            _tell(self._sentence([longer], owner))
        return True

    def taken(self) -> Iterator[tuple[str, str]]:
        """Each name that another matcher has, as it is written in a chat, and that matcher's plugin."""
        for start, name in self._longest_first():
            owner = self._owner_of(start, name)
            if owner is not None:
                yield start + name, owner

    def news(self) -> str:
        """What is to be said about names that others have and that were not yet told; empty: nothing."""
        by_owner: dict[str, list[str]] = {}
        for text, owner in self.taken():
            if text not in self._told:
                self._told.add(text)
                by_owner.setdefault(owner, []).append(text)
        return "; ".join(self._sentence(sorted(texts), owner) for owner, texts in by_owner.items())

    def _sentence(self, texts: list[str], owner: str) -> str:
        shown = ", ".join(texts)
        if self._fallback is not None:
            start = _shown_start()
            return f"{shown} left to {owner}: use {start}{self._fallback}, or set other names with {self._setting}"
        return f"{shown} also belongs to {owner}; {self._setting} asks for it, so superusers get lycomm's command"

    def _owner_of(self, start: str, name: str, argument: str = "") -> str | None:
        return owner_of(start + name + argument, control=f"{start}lycomm{argument}", ours=self._ours)

    def _longest_first(self) -> list[tuple[str, str]]:
        starts = get_driver().config.command_start
        every = [(start, name) for start in starts for name in self.names]
        return sorted(every, key=lambda pair: (-len(pair[0] + pair[1]), pair))


def tell_taken(commands: Iterable[Names]) -> None:
    """Log one line about the names of *commands* that other plugins have, each name once."""
    news = "; ".join(filter(None, [names.news() for names in commands]))
    if news:
        _tell(news)


def _tell(news: str) -> None:
    logger.opt(colors=False).warning(f"chat commands: {news}")


def _shown_start() -> str:
    starts = get_driver().config.command_start
    return "/" if "/" in starts else min(starts, key=lambda start: (len(start) != 1, start), default="")


async def _argument(state: T_State) -> str:
    return str(state[ARGUMENT_KEY])


Argument = Annotated[str, Depends(_argument)]
"""What stands behind the command's name, without white space around it."""
