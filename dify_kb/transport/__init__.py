"""Send one call and read its reply: attempts, retries, request limit."""

from __future__ import annotations

from .events import Attempted, OnAttempt
from .request_limiter import RequestLimiter
from .send import Sender
from .session import Session, connect

__all__ = ["Attempted", "OnAttempt", "RequestLimiter", "Sender", "Session", "connect"]
