"""Send API calls over HTTP, with retries and a limit on concurrent requests."""

from __future__ import annotations

from .attempt_event import AttemptEvent, OnAttempt
from .http_session import HTTPSession, open_session
from .request_limiter import RequestLimiter
from .sender import Sender

__all__ = ["AttemptEvent", "HTTPSession", "OnAttempt", "RequestLimiter", "Sender", "open_session"]
