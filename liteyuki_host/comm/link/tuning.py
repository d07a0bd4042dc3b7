"""The constants of a link's speed, each with the reason for its value.

The figures were measured with `python -m benchmarks`; see docs/performance.md for how.
"""

from __future__ import annotations

# --- who writes, and when (sender.py, writer.py) --------------------------------------------------------------

BURST_GAP = 1e-3
"""Seconds. A message that is sent this long after the last write begins a new burst, and is written at once, even if
nothing was received in between."""

INLINE_BURST = 4
"""How many messages of a burst their senders write themselves. Later ones are collected for one write. A short burst
must not wait for the flusher thread."""

GATHER_DELAY = 0.0005
"""Seconds that the flusher waits for more messages of a burst before it writes what there is."""

FLOOD_DELAY = 0.003
"""Seconds that the flusher waits again, as long as senders have written in the meantime: their writes have carried what
was queued before. Each wake-up of the flusher takes the processor and the GIL from the sender and the receiver. So this
is the longest that a message waits in a flood."""

GRANT_DELAY = 0.002
"""Seconds that the last grant of a stream waits for a message that can carry it."""

BUSY_GRANT_DELAY = 0.008
"""Seconds that a grant waits in addition when more has been consumed meanwhile. A grant that is worth a frame of its
own does not wait."""

# --- who reads, and when (shared_reader.py) ---------------------------------------------------------------------

GRACE = 0.005
"""Seconds that the guard thread gives the event loop to read. A ping takes at least that long while the loop is
blocked."""

LONG_GRACE = 0.02
"""Seconds that the guard gives the loop when the loop was seen reading before. Each wake-up of the guard takes the GIL
from a working thread. Measured: 20 bots that all receive handle a tenth more with fewer wake-ups."""

HAND_ON_SECONDS = 0.02
"""Seconds that ``receive(timeout=0)`` waits for what lies in the socket when it is for another thread to read: as long
as the guard may leave that to a loop."""

BETWEEN_SECONDS = 0.001
"""Seconds that it waits when nothing lies there, but another thread reads: that one may have taken something just now.
A thread that waits in a read looks the same, so this is what each such call costs beside one."""

SHORTAGE_SECONDS = 0.1
"""Seconds until the guard tries again to read what there was no memory for."""

SLICE = 1.0
"""Seconds after which a leading thread checks whether it was woken by something other than the data that it reads.
Nothing frequent needs that; the end of the link wakes it at once."""

READS_AT_ONCE = 4
"""How often the loop reads in one turn, a full buffer (512 KiB) each time at most, before it does something else."""

MUCH = 64 * 1024
"""Bytes. After a read of that size the sender is probably blocked, or soon will be: a socket pair holds three times as
much. One more read costs a tenth of a turn of the event loop. Measured with 64 KiB messages: 1.02 to 1.05 times as
many."""

READ_ON_SECONDS = 0.001
"""Seconds after which the loop reads no more in the same turn. What was read is handled before the next read, so a turn
may take longer than this by the time that callbacks take which never wait (``YIELD_SECONDS``, 5 ms)."""

QUESTIONS = 16
"""After so many reads in a row that were small, quick and gave the loop nothing to do, the guard reads in place of the
loop. Measured: confirmed writes one by one 1.27 times as many."""

QUESTION_SIZE = 4096
"""Bytes. A larger read is not a question but part of a stream, which is worth a turn of the loop."""

QUESTION_SECONDS = 0.0003
"""Seconds within which the next question follows: a round trip between two processes takes 0.02 to 0.15 ms."""

NO_QUESTIONS_SECONDS = 0.01
"""Seconds without a question after which the guard gives reading back to the loop."""

TURN_SECONDS = 0.001
"""Seconds. A thread that waits again within this time after its last message counts as one that asks and waits in turn.
For slower threads the cost of muting the loop does not matter."""

READS_FOR_OTHERS = 32
"""After so many reads that brought nothing for the leading thread, it leaves reading to the event loop, if there is
one. Two busy threads of one process get in each other's way: in a flood for the loop, the loop waited for the processor
half of the time, and its answers took 4 ms instead of 0.6 ms. With 2 instead of 32, a thread that shares the link with
a flood lost more by wake-ups than it gained."""

TURNS = 3
"""After so many turns a thread is expected to wait again, so the loop stays muted in between."""

SPIN_SECONDS = 50e-6
"""Seconds that a thread polls for an answer before it sleeps: a thread after :data:`TURNS` turns, and the guard while
it answers questions. When every thread sleeps, each message has to wake a processor too, which takes longer than an
answer. Measured on two processors: a round trip between threads takes 0.3 of the time, with an event loop 0.57, and
confirmed writes are 1.7 times as many; 100 µs gained hardly more. On a single processor nobody polls, as the other
process needs it."""

MOST_SPINS_LEFT_OUT = 63
"""After a poll in vain, so many waits at most go without one: first 1, then 3, 7 and so on, until a poll succeeds. With
slow answers, polling costs about a hundredth of a processor."""
