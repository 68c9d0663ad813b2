"""Failures by plan: what happens to the next calls of an endpoint, one word for each call."""

from __future__ import annotations

import re
import threading
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.wire.catalog import ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAMES = frozenset(endpoint.name for endpoint in ENDPOINTS)

_WORD = re.compile(
    r"(?P<commit>commit-then-)?"
    r"(?:(?P<reset>reset)|(?P<truncate>truncate)|(?P<limit>rate-limit)|stall (?P<stall>[\d.]+)s?"
    r"|(?P<status>[45]\d\d)(?P<html>-html)?(?: retry-after=(?P<after>\d+))?)"
)


@frozen
class Fault:
    """One failure. `commit` says that the call is carried out before it fails."""

    word: str
    commit: bool
    reset: bool = False
    truncate: bool = False
    rate_limit: bool = False
    stall: float = 0.0
    status: int = 0
    html: bool = False
    retry_after: str | None = None


class Faults:
    """The plans, by the names of endpoints. Any thread may call it.

    Words: `reset` (the connection is aborted), `503`, `503-html` (a proxy's page),
    `429 retry-after=1`, `rate-limit` (Dify's 403), `stall 0.2` (seconds of real time, then the
    call goes on), `truncate` (the JSON of the answer is cut); and with `commit-then-` before
    them, the failure follows after the call was carried out.
    """

    def __init__(self) -> None:
        self._plans: dict[str, deque[Fault]] = {}
        self._lock = threading.Lock()

    def plan(self, endpoint: str, words: Sequence[str]) -> None:
        """Have the next calls of an endpoint fail; adds to what is planned already.

        Raises:
            ConfigError: no such endpoint, or no such failure.
        """
        if endpoint not in _NAMES:
            raise ConfigError(
                f"There is no endpoint {endpoint!r}.", hint=f"Known: {', '.join(sorted(_NAMES))}."
            )
        faults = [_fault(word) for word in words]
        with self._lock:
            self._plans.setdefault(endpoint, deque()).extend(faults)

    def left(self) -> Mapping[str, Sequence[str]]:
        """Tell what was planned and did not happen yet."""
        with self._lock:
            return {
                endpoint: [fault.word for fault in faults]
                for endpoint, faults in self._plans.items()
                if faults
            }

    def take(self, endpoint: str) -> Fault | None:
        """Take the failure of this call off the plan."""
        if endpoint not in self._plans:
            return None
        with self._lock:
            faults = self._plans[endpoint]
            return faults.popleft() if faults else None


def _fault(word: str) -> Fault:
    match = _WORD.fullmatch(word)
    if match is None or (match["html"] and match["status"] not in map(str, HTTPStatus)):
        raise ConfigError(
            f"{word!r} is no failure that can be planned.",
            hint="Write reset, 503, 503-html, '429 retry-after=1', rate-limit, 'stall 0.2' or"
            " truncate, with or without commit-then- before it.",
        )
    return Fault(
        word=word,
        commit=bool(match["commit"] or match["truncate"]),
        reset=bool(match["reset"]),
        truncate=bool(match["truncate"]),
        rate_limit=bool(match["limit"]),
        stall=float(match["stall"] or 0),
        status=int(match["status"] or 0),
        html=bool(match["html"]),
        retry_after=match["after"],
    )
