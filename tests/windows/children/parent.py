"""Take the link, start a process that inherits whatever can be inherited, say its number, and wait."""

import os
import subprocess
import sys

from liteyuki_host.comm.transport import take_link

SLEEPER = "import os, time; print('LYCOMM_LINK' in os.environ, flush=True); time.sleep(60)"

link = take_link(os.environ)
# It lives until somebody ends it: the test does.
grandchild = subprocess.Popen(
    [sys.executable, "-c", SLEEPER], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, close_fds=False
)
print(grandchild.pid, grandchild.stdout.readline().decode().strip(), flush=True)
if link is None:
    grandchild.wait()
else:
    link.read_into(memoryview(bytearray(1)))  # until the host lets us go
    os._exit(0)  # and not a word to the grandchild
