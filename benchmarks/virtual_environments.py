"""Create virtual environments for other packages, outside of the repository, and reuse them."""

from __future__ import annotations

import platform
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

DEFAULT_FOLDER = Path("~/.cache/dify-kb-bench")
INSTALL_MINUTES = 5


@frozen
class VirtualEnvironment:
    """A Python with installed packages; `problem` is set if the installation failed."""

    python: str
    packages: Sequence[str] = ()
    problem: str | None = None


def create_environment(needs: Sequence[str], folder: Path) -> VirtualEnvironment:
    """Return an environment with these pinned requirements, and create it if it does not exist.

    The installation uses the package index of pip. An existing environment needs no network.
    """
    if not needs:
        return VirtualEnvironment(sys.executable)
    place = folder.expanduser() / "-".join([needs[0], "py" + platform.python_version()])
    python, ready = place / "bin" / "python", place / "ready.txt"
    if not ready.exists() or ready.read_text().splitlines()[0] != " ".join(needs):
        try:
            venv.create(place, with_pip=True, clear=True)
            _pip(python, "install", "--quiet", *needs)
            packages = _pip(python, "freeze")
        except (OSError, subprocess.SubprocessError) as error:
            return VirtualEnvironment(
                str(python), problem=f"could not be installed: {find_pip_error(error)}"
            )
        ready.write_text(" ".join(needs) + "\n" + packages)
    return VirtualEnvironment(str(python), ready.read_text().splitlines()[1:])


def _pip(python: Path, *arguments: str) -> str:
    return subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60 * INSTALL_MINUTES,
    ).stdout


def find_pip_error(error: Exception) -> str:
    """Return the line of pip's output with the error."""
    output = getattr(error, "stderr", None)
    lines = [line for line in str(output or error).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [type(error).__name__])[0]
