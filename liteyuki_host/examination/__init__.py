"""Finds, before anything starts, why bots could not start. See :func:`examine`."""

from __future__ import annotations

from liteyuki_host.examination.examine import examine
from liteyuki_host.examination.findings import Finding, Level

__all__ = ["Finding", "Level", "examine"]
