"""What to say of a first word that is no command."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Sequence

from liteyuki_host.comm.command import lycomm

MEANT = {
    **dict.fromkeys(("start", "up", "serve", "launch"), "run"),
    **dict.fromkeys(("test", "validate", "doctor", "list"), "check"),
    **dict.fromkeys(("config", "env", "setting", "init"), "settings"),
    "help": "--help",
    "version": "--version",
}
"""What other programs call our commands."""

NOT_HERE = {
    **dict.fromkeys(("stop", "down", "kill", "quit", "exit"), "press Ctrl+C where the host runs, or send it SIGTERM"),
    **dict.fromkeys(("restart", "status", "ps"), "a superuser of the bot writes /lycomm {word} to it in a chat"),
    "reload": "start the host with `{run} --reload`, and save a file of the bot",
}
"""What is done in another way."""


def explain(arguments: Sequence[str], verbs: Collection[str]) -> str:
    """Return one line for *arguments*, whose first is none of *verbs*: what was probably meant."""
    word = arguments[0]
    if word.endswith((".py", ".pyw")) or os.path.isfile(word):
        return f"{word} is no command; to run that script: `{lycomm('run', *arguments)}`"
    if os.path.isdir(word):
        return f"{word} is no command; to run the bot in that folder: `{lycomm('run', '--project', *arguments)}`"
    if word in NOT_HERE:
        instead = NOT_HERE[word].format(word="restart" if word == "restart" else "status", run=lycomm("run"))
        return f"there is no command {word!r}: {instead}"
    meant = MEANT.get(word.lower()) or next(iter(difflib.get_close_matches(word.lower(), verbs, 1, 0.5)), None)
    if meant is not None:
        return f"there is no command {word!r}; did you mean `{lycomm(meant)}`?"
    return f"there is no command {word!r}; there are {', '.join(verbs)}, explained by `{lycomm('--help')}`"
