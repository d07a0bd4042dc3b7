"""A host with nothing but a hub: ``guard_host.py FOLDER NAME...`` runs ``FOLDER/NAME.py`` as the child NAME.

It says when each has started, then waits for its own end.
"""

import sys
import threading
from pathlib import Path

from liteyuki_host.comm.transport import open_link
from liteyuki_host.hub import Hub, SessionListener
from liteyuki_host.project import ProjectPlan
from liteyuki_host.supervisor.leash import open_leash
from liteyuki_host.supervisor.process import Child
from liteyuki_host.supervisor.spec import ProcessSpec

folder = Path(sys.argv[1])
hub = Hub()
kept = []
for name in sys.argv[2:]:
    hub.declare_process(name)
    transport, handles = open_link()
    leash = open_leash()
    plan = ProjectPlan(folder, Path(sys.executable), "script", folder / f"{name}.py")
    child = Child.spawn(ProcessSpec(name, folder), plan, [handles, leash.handles], lambda code: None)
    handles.close()
    leash.handles.close()
    kept += [child, leash, hub.connect(name, transport, SessionListener())]
    print(f"{name} started {child.pid}", flush=True)
threading.Event().wait()
