"""The machine, the commit and the package versions of a run."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("dify-kb", "aiohttp", "anyio", "attrs", "cattrs", "uvloop")


def describe_run() -> dict[str, object]:
    """Return the time, commit, machine and versions of a run."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cpus": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
        },
        "python": platform.python_version(),
        "versions": {name: number for name in PACKAGES if (number := _version(name))},
    }


def format_title(run: dict[str, object]) -> str:
    """Return the machine and versions as one line."""
    machine, versions = run["machine"], run["versions"]
    assert isinstance(machine, dict)  # noqa: S101 -- as made above
    assert isinstance(versions, dict)  # noqa: S101 -- likewise
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"{machine['system']}, {machine['cpus']} CPUs ({machine['processor']}), load"
        f" {machine['load']}, Python {run['python']}, {packages}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(found, platform.processor() or platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit, or None outside of a clone."""
    git = shutil.which("git")
    if git is None:
        return None
    run = subprocess.run(
        [git, "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip() or None
