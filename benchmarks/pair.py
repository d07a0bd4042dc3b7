"""One measurement: ``python -m benchmarks.pair JOB RESULT``, started by the runner for each peer, measure and round.

This process is the host of the pair. JOB is a job as JSON, RESULT the file that gets what was measured.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from benchmarks.measures import Job
from benchmarks.peers import peer


def main() -> None:
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    job = Job.from_json(sys.argv[1])
    if job.one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before there is a child, which then has it too
    result = peer(job.peer).measure(job)
    Path(sys.argv[2]).write_text(json.dumps(result))


def _end_with_the_runner() -> None:
    """Standard input is a pipe that only the runner holds. It ends with the runner, also when that is killed."""
    os.read(0, 1)
    if hasattr(os, "killpg"):
        os.killpg(os.getpgrp(), signal.SIGKILL)  # ours, and of the children that have no session of their own
    else:
        os._exit(1)


if __name__ == "__main__":
    main()
