"""The constants of a link's speed, each with the reason for its value.

The figures were measured with `python -m benchmarks`; see docs/performance.md for how.
"""

from __future__ import annotations

# --- who writes, and when (sender.py, writer.py) --------------------------------------------------------------

BURST_GAP = 1e-3
"""Seconds after the last write from which a message counts as lone, even if no message was received meanwhile."""

INLINE_BURST = 4
"""Messages of a burst that are written one by one: a short burst must not wait for the flusher."""

GATHER_DELAY = 0.0005
"""Seconds that the flusher gives a burst to go on before it writes what is there."""

FLOOD_DELAY = 0.003
"""Seconds more, as long as somebody has written meanwhile: what was queued before that has been written with it, and
each look of the flusher takes the processor and the interpreter's lock from sender and receiver. So this is how long a
message waits at most."""

GRANT_DELAY = 0.002
"""Seconds that the last grant of a stream waits for a message to ride on."""

BUSY_GRANT_DELAY = 0.008
"""Seconds more, if more has been consumed meanwhile: it is not the last one. What is worth a frame does not wait."""

# --- who reads, and when (shared_reader.py) ---------------------------------------------------------------------

GRACE = 0.005
"""Seconds that the guard gives a loop to read by itself: what a ping takes at least while the loop is blocked."""

LONG_GRACE = 0.02
"""The same under traffic that the loop has been seen to read. Each look of the guard takes the interpreter's lock from
who works; with 20 bots that all receive, fewer looks gained a tenth."""

SHORTAGE_SECONDS = 0.1
"""Seconds until the guard tries again to read what there was no memory for."""

SLICE = 1.0
"""Seconds after which a leader looks whether its gate was opened by something else than what it reads. Nothing that
happens often needs that: a link's end wakes it."""

READS_AT_ONCE = 4
"""Reads, of a full buffer at most (512 KiB), after which the event loop gets to do something else."""

MUCH = 64 * 1024
"""Bytes of a read after which its sender is probably blocked, or soon will be: a socket pair holds three times as much.
One more read is a tenth of a turn of the event loop. Measured with 64 KiB messages: 1.02 to 1.05 times as many."""

READ_ON_SECONDS = 0.001
"""Seconds after which the loop does not read on in the same turn. Each read is handled before the next, so it may
become longer by as much as any turn: by the 5 ms that callbacks have which do not wait."""

QUESTIONS = 16
"""Reads in a row with which the loop had nothing to do, each small and soon after the last. From then on the guard
reads. Measured: confirmed writes one by one 1.27 times as many."""

QUESTION_SIZE = 4096
"""Bytes of a small one: more is a stream, whose reads are worth a turn of the loop."""

QUESTION_SECONDS = 0.0003
"""Seconds within which the next one comes: a round trip between two processes takes 0.02 to 0.15 ms."""

NO_QUESTIONS_SECONDS = 0.01
"""Seconds without a question after which the guard does not lead any more."""

TURN_SECONDS = 0.001
"""Seconds between an answer and the next wait of a thread that asks and waits in turn. Who does so less often does not
notice what muting costs."""

READS_FOR_OTHERS = 32
"""Reads that bring a leader nothing of its own, after which it leaves reading to the loop, if there is one. Two busy
threads of one process get in each other's way: with a flood that is the loop's, the loop waited for the processor half
of the time, and its answers took 4 ms instead of 0.6. With 2 instead of 32, a thread that shares the link with a flood
lost more by being woken than it gained."""

TURNS = 3
"""After so many turns the thread is expected to come again."""

SPIN_SECONDS = 50e-6
"""Seconds that who expects an answer soon looks for it before it sleeps: a thread after :data:`TURNS` turns, and the
guard while it answers questions. Once everybody sleeps, each message has to wake a processor too, and that takes longer
than an answer. Measured on two: a round trip between threads 0.3 of the time, with an event loop 0.57, confirmed writes
1.7 times as many; hardly more with 100 µs. Nobody spins on a single processor, which the other process needs."""

MOST_SPINS_LEFT_OUT = 63
"""Waits after a spin in vain that do without one, at most: 1 at first, then 3, 7 and so on, until one is not in vain.
So slow answers cost about a hundredth of a processor."""
