"""Progress of a benchmark, and the counter of its requests and errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from .results import ErrorSummary

if TYPE_CHECKING:
    from dify_kb.transport import AttemptEvent


@frozen(kw_only=True)
class ProgressStep:
    """The current step of a run. `completed_part` is the completed part of the run, 0 to 1."""

    phase: str
    description: str
    completed_part: float


OnProgress = Callable[[ProgressStep], None]
"""Called with each step, in the thread of the event loop; must not block."""


@define
class RequestCounter:
    """A counter of requests and their errors. Pass `record` to the client as `on_event`."""

    requests: int = 0
    _errors: Counter[tuple[str, str]] = field(factory=Counter)
    _examples: dict[tuple[str, str], str] = field(factory=dict)

    def record(self, event: AttemptEvent) -> None:
        """Count one attempt."""
        self.requests += 1
        if event.error is None:
            return
        kind = str(event.status) if event.status else event.failure_kind or "failed"
        self._errors[event.endpoint, kind] += 1
        self._examples.setdefault((event.endpoint, kind), event.error)

    def summarize_errors(self) -> Sequence[ErrorSummary]:
        """Return the errors by endpoint and kind, the most frequent first."""
        return [
            ErrorSummary(
                endpoint=endpoint, kind=kind, count=count, example=self._examples[endpoint, kind]
            )
            for (endpoint, kind), count in self._errors.most_common()
        ]
