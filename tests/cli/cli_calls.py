"""What a call of the command line gives, read."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

Cli = Callable[..., tuple[int, str, str]]
"""Runs a command; gives exit code, stdout and stderr."""

Program = Callable[..., subprocess.Popen[str]]
"""Starts a command in a process of its own."""


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def two_lines(stderr: str) -> tuple[str, str]:
    """The two lines of an error, without what they begin with."""
    what, following = stderr.strip().splitlines()[-2:]
    assert what.startswith("error: ")
    assert following.startswith("next:  ")
    return what[7:], following[7:]
