"""Starts, watches and stops the child processes. Nothing here is needed inside a child."""
