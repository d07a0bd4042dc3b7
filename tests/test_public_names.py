"""The names that users rely on exist, are listed, and are resolved lazily where that is promised."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

from liteyuki_host.comm import errors


@pytest.mark.parametrize("module", ["liteyuki_host", "liteyuki_host.comm", "liteyuki_host.comm.errors"])
def test_everything_listed_is_there_and_nothing_else_is_offered(module: str) -> None:
    package = importlib.import_module(module)
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        package.no_such_name  # noqa: B018


def test_the_names_of_the_architecture_page() -> None:
    program = """if True:
        from liteyuki_host import Host, get_bot
        from liteyuki_host.comm import Channel, get_channel, get_channels, set_channel
        from liteyuki_host.comm.storage import shared_memory
        for name in ("on_before_start", "on_after_start", "on_before_process_shutdown", "on_before_process_restart",
                     "on_after_restart", "on_after_shutdown", "load_plugin", "run", "stop", "wait_ready",
                     "restart_process", "start_process", "stop_process",
                     "arestart_process", "astart_process", "astop_process"):
            assert callable(getattr(Host, name)), name
        for name in ("send", "asend", "on_receive", "receive", "areceive", "request", "flush", "statistics"):
            assert callable(getattr(Channel, name)), name
        for name in ("get", "set", "delete", "get_all", "aset", "incr", "aincr", "compare_and_set", "acompare_and_set",
                     "update", "aupdate", "lock", "watch", "sync", "publish", "on_subscriber_receive"):
            assert callable(getattr(shared_memory, name)), name
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_every_error_is_in_the_tree_and_in_its_drawing() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.LycommError) and not value.__name__.startswith("_")
    ]
    for kind in classes:
        assert kind.__name__ in errors.__all__
        assert f" {kind.__name__}" in (errors.__doc__ or "")
        assert kind.__doc__
