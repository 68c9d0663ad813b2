"""Where the server is and how long to wait: every default with its unit and its reason."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit

import attrs
from attrs import field, frozen

from .errors import ConfigError


@frozen(kw_only=True)
class Timeout:
    """How long one attempt may take, in seconds. Waiting for a turn is not part of it."""

    connect: float = 10.0
    """Until the connection stands, TLS included."""

    read: float = 30.0
    """For a GET, from the request to the end of the reply: a page of 100 documents takes an idle
    server 0.2 s, an overloaded one seconds (measured)."""

    answer: float = 120.0
    """For a call that changes something, from its last byte to the end of the reply. A create
    that times out has probably happened (400 of 400, measured), so patience is cheaper."""

    progress: float = 30.0
    """While a body is sent: no block was taken for so long."""


@frozen(kw_only=True)
class Retry:
    """How often and when to try again. Delays are drawn evenly from 0 to their bound (full
    jitter), in seconds.
    """

    reads: int = 6
    """Attempts of a call that only reads."""

    idempotent: int = 5
    """Attempts of a call that can be repeated without changing more."""

    writes: int = 4
    """Attempts of a call that creates; only after failures that changed nothing."""

    total: float | None = 60.0
    """No further attempt begins so long after the first; a `Retry-After` beyond it is not waited
    for. None is no limit: loads wait longer, in their own admission."""

    throttled: int = 10
    """Attempts while the server says to come back later (429, 503, 403 rate limit)."""

    server_errors: int = 3
    """Attempts when a read meets a 500, which is often not a passing one."""

    base: float = 0.25
    """Bound of the first delay; it doubles each time."""

    longest: float = 20.0
    """Bound of any delay."""

    overload_base: float = 2.0
    """Bound of the first delay after 429 or 503."""

    overload_shortest: float = 0.5
    """Least delay after 429 or 503."""

    overload_longest: float = 60.0
    """Bound of any delay after 429 or 503."""

    hint_longest: float = 300.0
    """A `Retry-After` beyond this is cut to it."""

    quota: float = 8.0
    """Bound of the delay after a 403 rate limit; it counts refused calls, over a minute."""


@frozen(kw_only=True)
class Watch:
    """How indexing is followed, in seconds."""

    first: float = 0.5
    """Until the first look."""

    growth: float = 1.5
    """Each interval is so many times the one before while nothing moves."""

    longest: float = 15.0
    """The longest interval while nothing tells how fast the server is."""


@frozen(kw_only=True)
class Loading:
    """When a load looks, waits and gives up, in seconds."""

    settle: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 60.0)
    """After an unanswered create: the intervals between looks for its document; the last one
    repeats."""

    quarantine: float = 30.0
    """So long a create whose connection broke may still land: it is not sent again before."""

    patience: float = 120.0
    """The same after a timeout or a 502 or 504: the server waits for a lock of the dataset
    without limit (dataset_service, 1.12.1), and 400 of 400 timed-out creates landed (measured)."""

    dataset_lock: float = 600.0
    """So long a create may land that timed out while no other was answered: Dify keeps a dataset's
    lock for so long after a crash of its API process (measured on 1.4.3 and 1.14.2)."""

    confirm: float = 5.0
    """Between two looks that must both show the end of a document of which two runs may overlap:
    the first run's `completed` is shown and then withdrawn (measured on 1.14.2)."""

    sends: int = 4
    """Sends of one file in all; looks do not count."""

    recreate: float = 30.0
    """Until a document whose indexing failed for a passing reason is sent again; doubles."""

    recreations: int = 2
    """How often."""

    probe: float = 1.0
    """Until the first probe of a server that failed; doubles up to `probe_longest`."""

    probe_longest: float = 30.0
    """The longest interval between probes."""

    outage: float = 600.0
    """So long a server may fail before the run stops."""

    revisit: float = 60.0
    """A page of the list on which few ends are expected is looked at so often."""

    pace: float = 1.0
    """How long a second of the search for the right pace lasts."""

    grace: float = 10.0
    """So long requests that are under way may finish when a load is cancelled."""


@frozen(kw_only=True)
class Policy:
    """Every time that the client waits; tests scale it down."""

    timeout: Timeout = field(factory=Timeout)
    retry: Retry = field(factory=Retry)
    watch: Watch = field(factory=Watch)
    loading: Loading = field(factory=Loading)

    def scaled(self, factor: float) -> Policy:
        """Multiply the delays (not the timeouts) by `factor`."""
        retry, watch, loading = self.retry, self.watch, self.loading
        return attrs.evolve(
            self,
            retry=attrs.evolve(
                retry,
                base=retry.base * factor,
                longest=retry.longest * factor,
                overload_base=retry.overload_base * factor,
                overload_shortest=retry.overload_shortest * factor,
                overload_longest=retry.overload_longest * factor,
                quota=retry.quota * factor,
            ),
            watch=attrs.evolve(
                watch,
                first=watch.first * factor,
                longest=watch.longest * factor,
            ),
            loading=attrs.evolve(
                loading,
                settle=tuple(delay * factor for delay in loading.settle),
                quarantine=loading.quarantine * factor,
                patience=loading.patience * factor,
                dataset_lock=loading.dataset_lock * factor,
                confirm=loading.confirm * factor,
                recreate=loading.recreate * factor,
                probe=loading.probe * factor,
                probe_longest=loading.probe_longest * factor,
                outage=loading.outage * factor,
                revisit=loading.revisit * factor,
                pace=loading.pace * factor,
                grace=loading.grace * factor,
            ),
        )


DEFAULT_CONCURRENCY = 8
"""Requests in flight, and so connections: a default API process serves 10 connections, and an
11th waits about 5 s for an idle one to close (measured on 1.4.3)."""

KEEP_ALIVE = 2.5
"""Seconds that an idle connection is kept, so that other clients of a default server get one."""


@frozen(kw_only=True)
class Config:
    """The address and the key of one server."""

    base_url: str
    api_key: str = field(repr=False)

    @classmethod
    def read(cls, base_url: str | None, api_key: str | None) -> Config:
        """Take what is given, else `DIFY_BASE_URL` and `DIFY_API_KEY`.

        Raises:
            ConfigError: nothing was found, or the address is none. There is no default host:
                documents must not leave for a cloud by accident.
        """
        base_url = base_url or os.environ.get("DIFY_BASE_URL")
        api_key = api_key or os.environ.get("DIFY_API_KEY")
        if not base_url:
            raise ConfigError(
                "No server is named.",
                hint="Pass base_url (--url), or set DIFY_BASE_URL, e.g. https://dify.example/v1;"
                " emulator:PATH starts the embedded server.",
            )
        base_url = _normal(base_url)
        if not api_key:
            raise ConfigError(
                f"No API key for {base_url}.",
                hint="Pass api_key (--api-key), or set DIFY_API_KEY, to a knowledge key"
                " (dataset-…).",
            )
        if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ConfigError(
                "The API key holds characters that no key has.",
                hint="Copy it again; it looks like dataset-… and has no spaces.",
            )
        return cls(base_url=base_url, api_key=api_key)


def _normal(base_url: str) -> str:
    """Take an address with or without `/v1`, with or without a slash at its end."""
    base_url = base_url.strip()
    # Before anything else, as every other error shows the address.
    if "@" in base_url:
        raise ConfigError(
            "The address holds a user name or a password.", hint="Pass the key as api_key."
        )
    parts = _parts(base_url)
    if parts is None or parts.query or parts.fragment:
        raise ConfigError(
            f"{base_url!r} is no address of a server.",
            hint="It should look like https://dify.example/v1.",
        )
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else f'{path}/v1'}"


def _parts(base_url: str) -> SplitResult | None:
    try:
        parts = urlsplit(base_url)
        _ = parts.port  # raises when it is no port
    except ValueError:
        return None
    known = parts.scheme in {"http", "https"} and parts.hostname and " " not in base_url
    return parts if known else None
