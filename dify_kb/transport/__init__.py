"""Getting one call there and back. Knows no noun."""

from __future__ import annotations

from .admission import Admission
from .events import Attempted, OnAttempt
from .pace import Pace
from .send import Sender
from .session import Session, connect

__all__ = ["Admission", "Attempted", "OnAttempt", "Pace", "Sender", "Session", "connect"]
