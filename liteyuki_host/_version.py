"""The distribution's version, in a file of its own so that building it imports nothing."""

__version__ = "0.1.0"
