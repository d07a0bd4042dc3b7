"""Send what the seed makes over the link while receiving as much; print the digest of what came."""

import hashlib
import os
import random
import sys
import threading

from liteyuki_host.comm.transport import take_link

size, seed = int(sys.argv[1]), int(sys.argv[2])
link = take_link(os.environ)
assert link is not None
assert "LYCOMM_LINK" not in os.environ
data = random.Random(seed).randbytes(size)
sender = threading.Thread(target=link.write_all, args=([data],), daemon=True)
sender.start()
digest, left, buffer = hashlib.sha256(), size, memoryview(bytearray(256 * 1024))
while left and (count := link.read_into(buffer[: min(left, len(buffer))])):
    digest.update(buffer[:count])
    left -= count
sender.join()
print(digest.hexdigest() if not left else f"{left} bytes missing", flush=True)
# The pipe keeps what was written: ending here must not cost the host a byte.
