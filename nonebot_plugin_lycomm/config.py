"""The plugin's settings, read by NoneBot from the environment and from the bot's ``.env`` files."""

from __future__ import annotations

from pydantic import BaseModel

__all__ = ["Config"]


# Plain annotations and defaults only: NoneBot still runs on pydantic 1 as well, and so does this.
class Config(BaseModel):
    lycomm_commands: bool = True
    """Whether the chat commands below exist at all."""

    lycomm_restart_command: list[str] = ["restart", "重启"]
    """Names of the command that restarts a process; an empty list turns it off."""

    lycomm_status_command: list[str] = ["status", "状态"]
    """Names of the command that shows the processes; an empty list turns it off."""
