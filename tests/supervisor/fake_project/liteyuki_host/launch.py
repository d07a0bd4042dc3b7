"""A child without NoneBot: found before the real ``liteyuki_host`` because it lies in the working directory.

Speaks JSON lines over the link with the FakeHub of the tests. What it does wrong is in ``FAKE_CHILD``, words
separated by spaces.
"""

import contextlib
import faulthandler
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

behaviour = os.environ.get("FAKE_CHILD", "").split()
orders, link = (socket.socket(fileno=int(fd)) for fd in os.environ.pop("LYCOMM_LINK").removeprefix("fd:").split(","))
orders.set_inheritable(False)
link.set_inheritable(False)


def say(**message: object) -> None:
    with contextlib.suppress(OSError):
        link.sendall(json.dumps(message).encode() + b"\n")


beating = threading.Event()


def beat(interval: float) -> None:
    """The fake event loop: turns until it is told to block."""
    while beating.wait():
        say(beat=0.0)
        time.sleep(interval)


def linger() -> None:
    while True:
        time.sleep(3600)


if "--trial" in sys.argv:
    say(failed_plugins={})
    os._exit(0)
if "CLAIM" in os.environ:  # held for the life of this process; whoever finds it held leaves a mark
    claim = os.open(os.environ["CLAIM"], os.O_WRONLY | os.O_CREAT)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        Path(os.environ["CLAIM"]).with_suffix(".double").touch()
for word in behaviour:
    if word.startswith("ignore-SIG"):
        signal.signal(signal.Signals[word.removeprefix("ignore-")], signal.SIG_IGN)
faulthandler.register(signal.SIGUSR2, all_threads=True)
if "exit-at-once" in behaviour:
    sys.exit(1)
if "FAIL_WHILE" in os.environ and Path(os.environ["FAIL_WHILE"]).exists():
    sys.exit(5)
if "never-greet" in behaviour:
    linger()
say(hello=os.getpid())
for word in behaviour:
    if word.startswith("more-time-"):
        say(more_time=float(word.rpartition("-")[2]), reason="a large model")
if "hook-hangs" in behaviour:
    linger()
for word in behaviour:
    if word.startswith("exit-before-ready-"):
        sys.exit(int(word.rpartition("-")[2]))
say(hooks_done=["Fake"], failed_plugins=os.environ.get("FAKE_FAILED_PLUGINS", "").split())
if "port-stays-closed" in behaviour:
    linger()
details = {}
if "grandchild" in behaviour:
    # Ignores what a polite end would use.
    deaf = "import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]"
    code = f"{deaf}; print('up', flush=True); time.sleep(3600)"
    grandchild = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert grandchild.stdout is not None
    grandchild.stdout.readline()
    details["grandchild"] = str(grandchild.pid)
details["argv"] = json.dumps([sys.executable, *sys.argv])
details["environment"] = json.dumps(dict(os.environ))
details["cwd"] = os.getcwd()
details["session"] = str(os.getsid(0) == os.getpid())
say(ready="http://127.0.0.1:1", details=details)
if "segfault" in behaviour:
    os.kill(os.getpid(), signal.SIGSEGV)
if "drop-link" in behaviour:
    orders.close()
    link.close()
    linger()
if "linger-after-goodbye" in behaviour:
    say(goodbye=True)
    orders.close()
    link.close()
    linger()

mute = False
for line in orders.makefile():
    request = json.loads(line)
    if "watch" in request and request["watch"] and "no-beats" not in behaviour:
        beating.set()
        threading.Thread(target=beat, args=(request["watch"],), daemon=True).start()
    if "block" in request:
        beating.clear()
    if "unblock" in request:
        beating.set()
    if "mute" in request:
        mute = True
    if "ping" in request and not mute:
        say(pong=True)
    if "more_time" in request:
        say(more_time=request["more_time"], reason="on request")
    if "eat" in request:
        eaten = bytearray(os.urandom(1)) * request["eat"]
    if "drain" in request and "never-drained" not in behaviour and not ("slowly" in behaviour and request["drain"]):
        if "slow-handler" in behaviour:
            time.sleep(0.3)
        unfinished = "unfinished" in behaviour
        say(drained=["slow.handler (test)"] if unfinished else [], refused=2, unfinished=3 if unfinished else 0)
    if "exit" in request:
        say(goodbye=True)
        os._exit(request["exit"])
    if "stop" in request and "ignore-message" not in behaviour:
        say(goodbye=True)
        sys.exit(0)
sys.exit("the host is gone")
