"""Channels: what a process sends, what it receives, and how its callbacks are called."""
