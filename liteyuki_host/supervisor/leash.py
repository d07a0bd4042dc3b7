"""How a child learns of its host's death without a line of Python: a pipe that nobody ever writes to.

Only the host holds the writing end, so the reading end ends when the host does, however it does. Who reads is the
child's guard, see :mod:`liteyuki_host._child.guard`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from liteyuki_host import descriptors
from liteyuki_host._child.guard import LEASH_VARIABLE


class InheritedDescriptor:
    """A descriptor that a child inherits by number (``ChildHandles``); None: there is nothing to inherit."""

    def __init__(self, variable: str, descriptor: int | None) -> None:
        self._variable = variable
        self._descriptor = descriptor

    @property
    def environment(self) -> dict[str, str]:
        return {} if self._descriptor is None else {self._variable: f"fd:{self._descriptor}"}

    @property
    def popen_options(self) -> dict[str, Any]:
        return {} if self._descriptor is None else {"pass_fds": (self._descriptor,)}

    def close(self) -> None:
        """Give our copy back, after the spawn. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            descriptors.close(descriptor)


class Leash:
    """The host's end. Made by :func:`open_leash`, one for each child."""

    def __init__(self, ours: int | None, theirs: int | None) -> None:
        self.handles = InheritedDescriptor(LEASH_VARIABLE, theirs)
        self._ours = ours

    def release(self) -> None:
        """When the child is gone. One that is there all the same is killed about a second later. Idempotent."""
        ours, self._ours = self._ours, None
        if ours is not None:
            descriptors.close(ours)


def open_leash() -> Leash:
    """A leash for a child yet to be spawned. On Windows an empty one: there the job object ends the children."""
    if sys.platform == "win32":
        return Leash(None, None)
    theirs, ours = os.pipe()
    for end in (theirs, ours):
        descriptors.close_in_forks(end)
    return Leash(ours, theirs)
