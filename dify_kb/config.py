"""Where the server is and how long to wait: every default with its unit and its reason."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit

import attrs
from attrs import field, frozen

from .errors import ConfigError

MAX_FILE_SIZE = 15 * 1024 * 1024
"""Bytes; the server's default UPLOAD_FILE_SIZE_LIMIT (api/configs, 1.12.1)."""


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

    read_attempts: int = 6
    """Attempts of a call that only reads."""

    idempotent_attempts: int = 5
    """Attempts of a call that can be repeated without changing more."""

    write_attempts: int = 4
    """Attempts of a call that creates; only after failures that changed nothing."""

    total: float | None = 60.0
    """No further attempt begins so long after the first; a `Retry-After` beyond it is not waited
    for. None is no limit: loads wait longer, in their own admission."""

    throttled_attempts: int = 10
    """Attempts while the server says to come back later (429, 503, 403 rate limit)."""

    server_error_attempts: int = 3
    """Attempts when a read meets a 500, which is often not a passing one."""

    base_delay: float = 0.25
    """Bound of the first delay; it doubles each time."""

    max_delay: float = 20.0
    """Bound of any delay."""

    overload_base_delay: float = 2.0
    """Bound of the first delay after 429 or 503."""

    overload_min_delay: float = 0.5
    """Least delay after 429 or 503."""

    overload_max_delay: float = 60.0
    """Bound of any delay after 429 or 503."""

    max_retry_after: float = 300.0
    """A `Retry-After` beyond this is cut to it."""

    quota_delay: float = 8.0
    """Bound of the delay after a 403 rate limit; it counts refused calls, over a minute."""


@frozen(kw_only=True)
class Polling:
    """How indexing is followed, in seconds."""

    first_interval: float = 0.5
    """Until the first look."""

    interval_growth: float = 1.5
    """Each interval is so many times the one before while nothing moves."""

    max_interval: float = 15.0
    """The longest interval while nothing tells how fast the server is."""


@frozen(kw_only=True)
class LoadTiming:
    """When a load looks, waits and gives up, in seconds."""

    lookup_intervals: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 60.0)
    """After an unanswered create: the intervals between looks for its document; the last one
    repeats."""

    late_create_after_disconnect: float = 30.0
    """So long a create whose connection broke may still land: it is not sent again before."""

    late_create_after_timeout: float = 120.0
    """The same after a timeout or a 502 or 504: the server waits for a lock of the dataset
    without limit (dataset_service, 1.12.1), and 400 of 400 timed-out creates landed (measured)."""

    dataset_lock_time: float = 600.0
    """So long a create may land that timed out while no other was answered: Dify keeps a dataset's
    lock for so long after a crash of its API process (measured on 1.4.3 and 1.14.2)."""

    confirm_interval: float = 5.0
    """Between two looks that must both show the end of a document of which two runs may overlap:
    the first run's `completed` is shown and then withdrawn (measured on 1.14.2)."""

    max_sends: int = 4
    """Sends of one file in all; looks do not count."""

    recreate_delay: float = 30.0
    """Until a document whose indexing failed for a passing reason is sent again; doubles."""

    max_recreations: int = 2
    """How often."""

    probe_interval: float = 1.0
    """Until the first probe of a server that failed; doubles up to `max_probe_interval`."""

    max_probe_interval: float = 30.0
    """The longest interval between probes."""

    max_outage: float = 600.0
    """So long a server may fail before the run stops."""

    revisit_interval: float = 60.0
    """A page of the list on which few ends are expected is looked at so often."""

    tuning_second: float = 1.0
    """How long a second of the search for the right pace lasts."""

    grace_period: float = 10.0
    """So long requests that are under way may finish when a load is cancelled."""


@frozen(kw_only=True)
class Policy:
    """Every time that the client waits; tests scale it down."""

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
    def from_environment(cls, base_url: str | None, api_key: str | None) -> Config:
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
        base_url = _normalize_url(base_url)
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


def _normalize_url(base_url: str) -> str:
    """Take an address with or without `/v1`, with or without a slash at its end."""
    base_url = base_url.strip()
    # Before anything else, as every other error shows the address.
    if "@" in base_url:
        raise ConfigError(
            "The address holds a user name or a password.", hint="Pass the key as api_key."
        )
    parts = _split_url(base_url)
    if parts is None or parts.query or parts.fragment:
        raise ConfigError(
            f"{base_url!r} is no address of a server.",
            hint="It should look like https://dify.example/v1.",
        )
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else f'{path}/v1'}"


def _split_url(base_url: str) -> SplitResult | None:
    try:
        parts = urlsplit(base_url)
        _ = parts.port  # raises when it is no port
    except ValueError:
        return None
    is_valid = parts.scheme in {"http", "https"} and parts.hostname and " " not in base_url
    return parts if is_valid else None
