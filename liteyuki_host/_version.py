"""The distribution's version, in a file of its own so that building it, and asking for it, imports nothing."""

__version__ = "0.1.0"

PROTOCOL_VERSION = 1
"""Of the link between host and bot; see ``comm/protocol/messages.py`` for when it grows."""
