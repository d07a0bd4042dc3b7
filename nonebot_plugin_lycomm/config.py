"""The plugin's settings, read by NoneBot from the environment and from the bot's ``.env`` files."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = ["Config"]


# Plain annotations, defaults and descriptions only: NoneBot still runs on pydantic 1 as well, and so does this. The
# descriptions are what users read: python -m tests.docs.write puts them into the README and .env.example.
class Config(BaseModel):
    lycomm_commands: bool = Field(default=True, description="whether the two commands exist")
    lycomm_restart_command: list[str] = Field(
        default=["restart", "重启"], description="names of the command that restarts; `[]` turns it off"
    )
    lycomm_status_command: list[str] = Field(
        default=["status", "状态"], description="names of the command that shows the processes; `[]` turns it off"
    )
