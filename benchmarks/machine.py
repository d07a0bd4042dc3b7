"""Where a run was made, as far as a reader needs it: never names or addresses."""

from __future__ import annotations

import os
import platform
from importlib import metadata

PACKAGES = (
    "nonebot-plugin-lycomm",
    "nonebot2",
    "msgspec",
    "pyzmq",
    "magicoca",
    "UltraDict",
    "shared-memory-dict",
    "redis",
    "nb-cli",
)


def facts() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": str(cores),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{package: version for package in PACKAGES if (version := _version(package)) is not None},
    }


def load() -> float | None:
    """How many processes wanted a core in the last minute; above 1 before a run, it measures others too."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
