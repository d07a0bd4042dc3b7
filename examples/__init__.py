"""Small pairs of programs: one half runs in the host, the other in the bot. Not part of the wheel."""
