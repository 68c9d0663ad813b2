"""The command line: one module per command; text for people, `--json` for programs."""

from __future__ import annotations

from .app import run

__all__ = ["run"]
