"""The link's rules, without I/O: bytes in, events out; no clock, no socket, no thread."""
