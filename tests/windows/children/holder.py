"""Start the given script in a job, print its number and its child's, and wait to be killed."""

import subprocess
import sys
import time

from liteyuki_host.supervisor.job_object import CREATE_SUSPENDED, JobObject

job = JobObject.create()
child = subprocess.Popen(
    [sys.executable, sys.argv[1]],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    text=True,
    creationflags=CREATE_SUSPENDED,
)
job.assign(child)
print(child.pid, child.stdout.readline().split()[0], flush=True)
time.sleep(60)
