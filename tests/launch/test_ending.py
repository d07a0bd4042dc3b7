from __future__ import annotations

import threading
import time

import pytest

from liteyuki_host._child.ending import Ending


def test_a_bot_is_asked_to_end_also_when_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    ending = Ending()

    def lose_the_host() -> None:
        ending.on_host_gone("killed")
        time.sleep(5)  # where the interrupt arrives

    with pytest.raises(KeyboardInterrupt):
        lose_the_host()
    assert ending.host_gone
