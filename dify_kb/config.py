"""The configuration of a client: address, API key, timeouts, retries and polling intervals."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit

import attrs
from attrs import field, frozen

from .errors import ConfigError

MAX_FILE_SIZE = 15 * 1024 * 1024
"""Maximum file size in bytes: the server's default UPLOAD_FILE_SIZE_LIMIT (api/configs, 1.12.1)."""


@frozen(kw_only=True)
class Timeout:
    """The timeouts of one attempt, in seconds. Waiting for a free request slot does not count."""

    connect: float = 10.0
    """Time to establish a connection, including TLS."""

    read: float = 30.0
    """Time for a GET, from the request to the end of the response. A page of 100 documents takes
    0.2 s on an idle server and several seconds on an overloaded one (measured)."""

    answer: float = 120.0
    """Time for a request that changes something, from its last byte sent to the end of the
    response. Generous, as a create that times out usually succeeded (400 of 400, measured)."""

    progress: float = 30.0
    """Maximum time without progress while a body is sent."""


@frozen(kw_only=True)
class Retry:
    """The number of attempts and the backoff between them.

    Delays are in seconds and random, between 0 and their maximum (full jitter).
    """

    read_attempts: int = 6
    """Maximum attempts of a request that only reads."""

    idempotent_attempts: int = 5
    """Maximum attempts of a request that can be repeated safely, such as an update or delete."""

    write_attempts: int = 4
    """Maximum attempts of a create; retried only after failures that created nothing."""

    total: float | None = 60.0
    """Time after the first attempt during which further attempts may start. A `Retry-After` that
    exceeds it raises immediately. None has no limit. Loads retry longer, by their own rules."""

    throttled_attempts: int = 10
    """Maximum attempts after responses that ask for a delay (429, 503, 403 rate limit)."""

    server_error_attempts: int = 3
    """Maximum attempts of a read after a 500, which is often permanent."""

    base_delay: float = 0.25
    """Maximum of the first delay; doubles with each attempt."""

    max_delay: float = 20.0
    """Maximum of all delays."""

    overload_base_delay: float = 2.0
    """Maximum of the first delay after 429 or 503; doubles with each attempt."""

    overload_min_delay: float = 0.5
    """Minimum delay after 429 or 503."""

    overload_max_delay: float = 60.0
    """Maximum of all delays after 429 or 503."""

    max_retry_after: float = 300.0
    """Maximum `Retry-After`; longer values are capped."""

    quota_delay: float = 8.0
    """Maximum delay after a 403 rate limit. Longer than other delays, as the server counts
    requests per minute and includes rejected ones."""


@frozen(kw_only=True)
class Polling:
    """The intervals at which the indexing status is polled, in seconds."""

    first_interval: float = 0.5
    """Interval before the first poll."""

    interval_growth: float = 1.5
    """Factor between two intervals while indexing makes no progress."""

    max_interval: float = 15.0
    """Maximum interval while the server's indexing speed is unknown."""


@frozen(kw_only=True)
class LoadTiming:
    """The intervals and limits of a load, in seconds."""

    lookup_intervals: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 60.0)
    """Intervals between searches for the document of a create without a response. The last
    interval repeats."""

    late_create_after_disconnect: float = 30.0
    """Time during which a create may still succeed after its connection was lost. The file is not
    sent again earlier."""

    late_create_after_timeout: float = 120.0
    """The same after a timeout, 502 or 504. Longer, as the server waits for a lock of the dataset
    without limit (dataset_service, 1.12.1); 400 of 400 timed-out creates succeeded (measured)."""

    dataset_lock_time: float = 600.0
    """The same after a timeout while no other create got a response. Dify keeps a dataset's lock
    for this time after a crash of its API process (measured on 1.4.3 and 1.14.2)."""

    confirm_interval: float = 5.0
    """Interval between two polls that must both report a final status, if two indexing runs of a
    document may overlap: the first run's `completed` is then withdrawn (measured on 1.14.2)."""

    max_sends: int = 4
    """Maximum number of uploads of one file. Searches for its document do not count."""

    recreate_delay: float = 30.0
    """Delay before a document whose indexing failed for a temporary reason is created again;
    doubles each time."""

    max_recreations: int = 2
    """Maximum number of times that such a document is created again."""

    probe_interval: float = 1.0
    """Delay before the first probe of a failed server; doubles up to `max_probe_interval`."""

    max_probe_interval: float = 30.0
    """Maximum interval between probes of a failed server."""

    max_outage: float = 600.0
    """Time that a server may be unavailable before the run stops."""

    revisit_interval: float = 60.0
    """Polling interval of a page of the document list on which few documents are likely to have
    finished."""

    tuning_second: float = 1.0
    """Unit of time of the automatic tuning of concurrency. Only tests shorten it."""

    grace_period: float = 10.0
    """Time that requests in flight get to finish when a load is cancelled."""


@frozen(kw_only=True)
class Policy:
    """All timeouts, retry limits and intervals of a client."""

    timeout: Timeout = field(factory=Timeout)
    retry: Retry = field(factory=Retry)
    polling: Polling = field(factory=Polling)
    load_timing: LoadTiming = field(factory=LoadTiming)

    def scaled(self, factor: float) -> Policy:
        """Multiply the delays (not the timeouts) by `factor`."""
        retry, polling, timing = self.retry, self.polling, self.load_timing
        return attrs.evolve(
            self,
            retry=attrs.evolve(
                retry,
                base_delay=retry.base_delay * factor,
                max_delay=retry.max_delay * factor,
                overload_base_delay=retry.overload_base_delay * factor,
                overload_min_delay=retry.overload_min_delay * factor,
                overload_max_delay=retry.overload_max_delay * factor,
                quota_delay=retry.quota_delay * factor,
            ),
            polling=attrs.evolve(
                polling,
                first_interval=polling.first_interval * factor,
                max_interval=polling.max_interval * factor,
            ),
            load_timing=attrs.evolve(
                timing,
                lookup_intervals=tuple(delay * factor for delay in timing.lookup_intervals),
                late_create_after_disconnect=timing.late_create_after_disconnect * factor,
                late_create_after_timeout=timing.late_create_after_timeout * factor,
                dataset_lock_time=timing.dataset_lock_time * factor,
                confirm_interval=timing.confirm_interval * factor,
                recreate_delay=timing.recreate_delay * factor,
                probe_interval=timing.probe_interval * factor,
                max_probe_interval=timing.max_probe_interval * factor,
                max_outage=timing.max_outage * factor,
                revisit_interval=timing.revisit_interval * factor,
                tuning_second=timing.tuning_second * factor,
                grace_period=timing.grace_period * factor,
            ),
        )


DEFAULT_CONCURRENCY = 8
"""Maximum requests in flight, which is also the number of connections. A default API process
serves 10 connections; an 11th waits about 5 s for an idle one to close (measured on 1.4.3)."""

KEEP_ALIVE = 2.5
"""Seconds that an idle connection stays open. Short, as a default server has few connections."""


@frozen(kw_only=True)
class Config:
    """The address and the API key of a server."""

    base_url: str
    api_key: str = field(repr=False)

    @classmethod
    def from_environment(cls, base_url: str | None, api_key: str | None) -> Config:
        """Create a configuration; `DIFY_BASE_URL` and `DIFY_API_KEY` replace missing arguments.

        Raises:
            ConfigError: the address or the key is missing or invalid. There is no default host,
                to avoid sending documents to a cloud by accident.
        """
        base_url = base_url or os.environ.get("DIFY_BASE_URL")
        api_key = api_key or os.environ.get("DIFY_API_KEY")
        if not base_url:
            raise ConfigError(
                "Missing server address.",
                hint="Pass base_url (--url), or set DIFY_BASE_URL, e.g. https://dify.example/v1;"
                " Use emulator:PATH to start the embedded server.",
            )
        base_url = _normalize_url(base_url)
        if not api_key:
            raise ConfigError(
                f"Missing API key for {base_url}.",
                hint="Pass a knowledge key (dataset-…) as api_key (--api-key), or set"
                " DIFY_API_KEY.",
            )
        if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ConfigError(
                "The API key contains invalid characters.",
                hint="Copy the key again; it looks like dataset-… and has no spaces.",
            )
        return cls(base_url=base_url, api_key=api_key)


def _normalize_url(base_url: str) -> str:
    """Return the address with `/v1` and without a trailing slash."""
    base_url = base_url.strip()
    # Checked first, as all other errors contain the address.
    if "@" in base_url:
        raise ConfigError(
            "The server address contains a user name or password.",
            hint="Remove them, and pass the API key as api_key.",
        )
    parts = _split_url(base_url)
    if parts is None or parts.query or parts.fragment:
        raise ConfigError(
            f"Invalid server address: {base_url!r}.",
            hint="Use an address such as https://dify.example/v1.",
        )
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else f'{path}/v1'}"


def _split_url(base_url: str) -> SplitResult | None:
    try:
        parts = urlsplit(base_url)
        _ = parts.port  # raises if the port is invalid
    except ValueError:
        return None
    is_valid = parts.scheme in {"http", "https"} and parts.hostname and " " not in base_url
    return parts if is_valid else None
