from __future__ import annotations

from datetime import UTC, datetime


def exact(seconds: float) -> datetime:
    """Show a time to the microsecond: only a file's is."""
    return datetime.fromtimestamp(seconds, UTC)


def whole(seconds: float) -> datetime:
    """Show whole seconds: what every time but a file's is."""
    return datetime.fromtimestamp(int(seconds), UTC)


def maybe(seconds: float | None) -> datetime | None:
    """Show whole seconds, or that there is no time yet."""
    return None if seconds is None else whole(seconds)
