"""Send API calls over HTTP, with retries and a limit on concurrent requests."""

from __future__ import annotations

from .attempt_event import AttemptEvent, OnAttempt
from .connection import Connection
from .http_session import HTTPSession, open_session
from .proxy import choose_proxy
from .request_limiter import RequestLimiter
from .sender import Sender

__all__ = [
    "AttemptEvent",
    "Connection",
    "HTTPSession",
    "OnAttempt",
    "RequestLimiter",
    "Sender",
    "choose_proxy",
    "open_session",
]
