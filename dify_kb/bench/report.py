"""What a run found: frozen values that travel as JSON. Times are seconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from .knee import Knee
from .numbers import Latency, Spread
from .plan import Load

FORMAT = 1
"""Of the JSON; higher when a reader of the one before would misread it."""


@frozen(kw_only=True)
class Where:
    """What was measured, from where, and when."""

    when: str
    """ISO 8601, UTC."""

    server: str
    server_version: str | None
    client: str
    python: str
    machine: str
    processors: int
    ping: Latency | None
    """Of a small read: how far away the server is."""


@frozen(kw_only=True)
class Level:
    """A number of requests at once. `rate` is answers a second, over the rounds."""

    at_once: int
    rate: Spread
    latency: Latency | None
    errors: int


@frozen(kw_only=True)
class Uploads:
    """Uploads of files of one size. The knee tells how many at once fill the server."""

    size: int
    levels: Sequence[Level]
    knee: Knee | None


@frozen(kw_only=True)
class Searches:
    """Searches of one method that ask for `top_k` passages."""

    method: str
    top_k: int
    levels: Sequence[Level]
    knee: Knee | None


@frozen(kw_only=True)
class Indexed:
    """How documents of the corpus were indexed after they were accepted.

    `available` is what a user waits: from the answer of the create until a list shows the end, so
    known to one interval of looking. `queued` and `worked` are the server's own times, in whole
    seconds: from the creation to the begin of its work, and from there to the end.
    """

    technique: str
    documents: int
    completed: int
    failed: int
    unfinished: int
    """Not at their end when the time was over."""

    bytes: int
    chunks: int
    seconds: float
    """From the first create to the last end seen."""

    rate: float
    """Documents a second over that time."""

    available: Spread | None
    queued: Spread | None
    worked: Spread | None
    course: Sequence[tuple[float, int]]
    """Seconds since the first create, and how many were at their end by then."""


@frozen(kw_only=True)
class Listed:
    """What a page of 100 documents costs in a base of so many."""

    documents: int
    first: Spread
    last: Spread
    """The last page."""


@frozen(kw_only=True)
class Trouble:
    """Requests of one endpoint that met the same."""

    endpoint: str
    kind: str
    count: int
    example: str


@frozen(kw_only=True)
class InstanceReport:
    """What an instance does. Parts that could not be measured are empty, and `notes` tells why."""

    where: Where
    plan: str
    load: Load
    """What was announced."""

    uploads: Sequence[Uploads]
    indexed: Indexed | None
    searches: Sequence[Searches]
    listed: Sequence[Listed]
    troubles: Sequence[Trouble]
    notes: Sequence[str]
    requests: int
    documents: int
    seconds: float
    type: str = "bench"
    format: int = FORMAT
