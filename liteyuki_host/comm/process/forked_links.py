"""A process that a plugin forks (multiprocessing on Linux) must not speak on its parent's link.

It has a copy of the socket but none of the threads; a single write would tear the stream.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["LinkHolder", "close_in_forks"]


class LinkHolder(Protocol):
    def lose_link(self) -> None:
        """This process is a copy of the one that the link belongs to."""
        ...


_linked: weakref.WeakSet[LinkHolder] = weakref.WeakSet()
_watching = False


def close_in_forks(holder: LinkHolder) -> None:
    """Have *holder* lose its link in every process that is forked from now on, as long as it lives."""
    global _watching
    _linked.add(holder)
    if not _watching and hasattr(os, "register_at_fork"):
        _watching = True  # once: the registration cannot be taken back
        os.register_at_fork(after_in_child=_lose_links)


def _lose_links() -> None:
    for holder in list(_linked):
        holder.lose_link()
