"""The configuration of a client: address, API key, timeouts, retries and polling intervals."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, urlsplit

import attrs
from attrs import field, frozen

from dify_kb.argument_checks import check_arguments

from .arguments import Duration, check_type, parse_duration, parse_optional_duration
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILE_SIZE = 15 * 1024 * 1024
"""Maximum file size in bytes: the server's default UPLOAD_FILE_SIZE_LIMIT (api/configs, 1.12.1)."""


def _check_fields(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Add converters that accept durations as texts, and whose errors name the field."""

    def convert(value: Any, this: attrs.Attribute[Any]) -> Any:
        name = f"{cls.__name__}.{this.name}"
        if isinstance(this.default, float):
            is_optional = "None" in str(this.type)
            return (
                parse_optional_duration(value, name) if is_optional else parse_duration(value, name)
            )
        if isinstance(this.default, tuple):
            check_type(value, tuple | list, name, "a tuple of durations")
            if not value:
                raise ConfigError(f"{name} is empty.", hint="Pass at least one duration.")
            return tuple(parse_duration(each, name) for each in value)
        if isinstance(this.default, int):
            check_type(value, int, name, "a whole number")
            minimum = 0 if this.name == "max_recreations" else 1
            if value < minimum:
                raise ConfigError(f"Invalid {name}: {value}.", hint=f"Use {minimum} or more.")
        return value

    return [each.evolve(converter=attrs.Converter(convert, takes_field=True)) for each in fields]


@frozen(kw_only=True, field_transformer=_check_fields)
class Timeout:
    """The timeouts of one attempt, in seconds. Waiting for a free request slot does not count.

    Args:
        connect: time to establish a connection, including TLS.
        read: time for a GET, from the request to the end of the response. A page of 100 documents
            takes 0.2 s on an idle server and several seconds on an overloaded one (measured).
        answer: time for a request that changes something, from its last byte sent to the end of the
            response. Generous, as a create that times out usually succeeded (400 of 400, measured).
        progress: maximum time without progress while a body is sent.

    Raises:
        ConfigError: a text is not a duration, or a duration is negative.
        TypeError: a value is neither a number, a text nor a `timedelta`.
    """

    connect: float = field(default=10.0, converter=parse_duration)
    read: float = field(default=30.0, converter=parse_duration)
    answer: float = field(default=120.0, converter=parse_duration)
    progress: float = field(default=30.0, converter=parse_duration)

    @classmethod
    def from_argument(cls, value: Timeout | Duration) -> Timeout:
        """Return the timeouts; a single duration is used for each of them.

        Raises:
            ConfigError: the text is not a duration, or the duration is negative.
            TypeError: the value has another type.
        """
        if isinstance(value, Timeout):
            return value
        seconds = parse_duration(value, "timeout")
        return cls(connect=seconds, read=seconds, answer=seconds, progress=seconds)


@frozen(kw_only=True, field_transformer=_check_fields)
class Retry:
    """The number of attempts and the backoff between them.

    Delays are in seconds and random, between 0 and their maximum (full jitter).

    Args:
        read_attempts: maximum attempts of a request that only reads.
        idempotent_attempts: maximum attempts of a request that can be repeated safely, such as an
            update or delete.
        write_attempts: maximum attempts of a create; retried only after failures that created
            nothing.
        total: time after the start of a call during which attempts may start, including all
            waiting: for a `Retry-After`, also one of another call, and for a free connection. What
            exceeds it raises immediately. A call thus ends within this time and the timeouts of one
            attempt. None has no limit. Loads retry longer, by their own rules.
        throttled_attempts: maximum attempts after responses that ask for a delay (429, 503, 403
            rate limit).
        server_error_attempts: maximum attempts of a read after a 500, which is often permanent.
        base_delay: maximum of the first delay; doubles with each attempt.
        max_delay: maximum of all delays.
        overload_base_delay: maximum of the first delay after 429 or 503; doubles with each attempt.
        overload_min_delay: minimum delay after 429 or 503.
        overload_max_delay: maximum of all delays after 429 or 503.
        max_retry_after: maximum `Retry-After`; longer values are capped.
        quota_delay: maximum delay after a 403 rate limit. Longer than other delays, as the server
            counts requests per minute and includes rejected ones.
    """

    read_attempts: int = 6
    idempotent_attempts: int = 5
    write_attempts: int = 4
    total: float | None = field(default=60.0, converter=parse_optional_duration)
    throttled_attempts: int = 10
    server_error_attempts: int = 3
    base_delay: float = 0.25
    max_delay: float = 20.0
    overload_base_delay: float = 2.0
    overload_min_delay: float = 0.5
    overload_max_delay: float = 60.0
    max_retry_after: float = 300.0
    quota_delay: float = 8.0


@frozen(kw_only=True, field_transformer=_check_fields)
class Polling:
    """The intervals at which the indexing status is polled, in seconds.

    Args:
        first_interval: interval before the first poll.
        interval_growth: factor between two intervals while indexing makes no progress.
        max_interval: maximum interval while the server's indexing speed is unknown.
    """

    first_interval: float = 0.5
    interval_growth: float = 1.5
    max_interval: float = 15.0


@frozen(kw_only=True, field_transformer=_check_fields)
class LoadTiming:
    """The intervals and limits of a load, in seconds.

    Args:
        lookup_intervals: intervals between searches for the document of a create without a
            response. The last interval repeats.
        late_create_after_disconnect: time during which a create may still succeed after its
            connection was lost. The file is not sent again earlier.
        late_create_after_timeout: the same after a timeout, 502 or 504. Longer, as the server waits
            for a lock of the dataset without limit (dataset_service, 1.12.1); 400 of 400 timed-out
            creates succeeded (measured).
        dataset_lock_time: the same after a timeout while no other create got a response. Dify keeps
            a dataset's lock for this time after a crash of its API process (measured on 1.4.3 and
            1.14.2).
        confirm_interval: interval between two polls that must both report a final status, if two
            indexing runs of a document may overlap: the first run's `completed` is then withdrawn
            (measured on 1.14.2).
        max_sends: maximum number of uploads of one file. Searches for its document do not count.
        recreate_delay: delay before a document whose indexing failed for a temporary reason is
            created again; doubles each time.
        max_recreations: maximum number of times that such a document is created again.
        probe_interval: delay before the first probe of a failed server; doubles up to
            `max_probe_interval`.
        max_probe_interval: maximum interval between probes of a failed server.
        max_outage: time that a server may be unavailable before the run stops.
        revisit_interval: polling interval of a page of the document list on which few documents are
            likely to have finished.
        tuning_second: unit of time of the automatic tuning of concurrency. Only tests shorten it.
        grace_period: time that requests in flight get to finish when a load is cancelled.
    """

    lookup_intervals: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 60.0)
    late_create_after_disconnect: float = 30.0
    late_create_after_timeout: float = 120.0
    dataset_lock_time: float = 600.0
    confirm_interval: float = 5.0
    max_sends: int = 4
    recreate_delay: float = 30.0
    max_recreations: int = 2
    probe_interval: float = 1.0
    max_probe_interval: float = 30.0
    max_outage: float = 600.0
    revisit_interval: float = 60.0
    tuning_second: float = 1.0
    grace_period: float = 10.0


@check_arguments
@frozen(kw_only=True)
class Policy:
    """All timeouts, retry limits and intervals of a client.

    Args:
        timeout: timeouts of one attempt.
        retry: number of attempts, and the backoff between them.
        polling: intervals at which the indexing status is polled.
        load_timing: intervals and limits of loads.
    """

    timeout: Timeout = field(factory=Timeout)
    retry: Retry = field(factory=Retry)
    polling: Polling = field(factory=Polling)
    load_timing: LoadTiming = field(factory=LoadTiming)

    def merge(self, timeout: Timeout | Duration | None, retry: Retry | None) -> Policy:
        """Return the policy with other timeouts and retries; None keeps them.

        Raises:
            ConfigError: `timeout` is not a valid duration.
            TypeError: an argument has the wrong type.
        """
        return attrs.evolve(
            self,
            timeout=self.timeout if timeout is None else Timeout.from_argument(timeout),
            retry=retry or self.retry,
        )

    def scaled(self, factor: float) -> Policy:
        """Return the policy with all delays (not the timeouts) multiplied by `factor`.

        Raises:
            ConfigError: `factor` is negative, infinite or NaN.
        """
        if not 0 <= factor < math.inf:
            raise ConfigError(f"Invalid factor: {factor}.", hint="Use a number such as 0.1.")
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
                hint="Pass base_url= (--url), set DIFY_BASE_URL, e.g. https://dify.example/v1, or"
                " use a profile; emulator:FILE starts the embedded server.",
            )
        base_url = _normalize_url(base_url)
        if not api_key:
            raise ConfigError(
                f"Missing API key for {base_url}.",
                hint="Pass a knowledge key (dataset-…) as api_key= (--api-key), or set"
                " DIFY_API_KEY.",
            )
        if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ConfigError(
                "The API key contains invalid characters.",
                hint="Copy the key again; it looks like dataset-… and has no spaces.",
            )
        return cls(base_url=base_url, api_key=api_key)


def _normalize_url(base_url: str) -> str:
    """Return the address with `/v1`, without a trailing slash, in ASCII."""
    base_url = base_url.strip()
    # Checked first, as all other errors contain the address.
    if "@" in base_url:
        raise ConfigError(
            "The server address contains a user name or password.",
            hint="Remove them, and pass the API key as api_key.",
        )
    parts = split_url(base_url)
    if parts is None or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
        raise ConfigError(
            f"Invalid server address: {base_url!r}.",
            hint="Use an address such as https://dify.example/v1.",
        )
    path = quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith('/v1') else f'{path}/v1'}"


_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|\[[0-9a-f:.]+\]", re.IGNORECASE)


def split_url(url: str) -> SplitResult | None:
    """Split an absolute URL; its host is returned in ASCII. None if the URL is invalid."""
    if " " in url or not url.isprintable():
        return None
    try:
        parts = urlsplit(url)
        port = parts.port  # raises if the port is invalid
        user, at, address = parts.netloc.rpartition("@")
        host = address if port is None else address.rpartition(":")[0]
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:
        return None
    host = host.removesuffix(":")
    if port == 0 or not _HOST.fullmatch(host) or not _is_canonical(host):
        return None
    return parts._replace(netloc=f"{user}{at}{host}" + ("" if port is None else f":{port}"))


def _is_canonical(host: str) -> bool:
    """Return whether an address in numbers is valid; names are checked by `_HOST`."""
    if host[-1] != "]" and not re.fullmatch(r"[0-9.]+", host):
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = frozenset({"content-encoding", "content-length", "expect", "transfer-encoding"})


def check_headers(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return additional headers of requests, after checking that they can be sent.

    Raises:
        ConfigError: a name or a value contains characters that are invalid in a header, or the
            client sets the header itself.
    """
    if headers is None:
        return {}
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ConfigError(
                f"Invalid header name: {name!r}.", hint="Use letters, digits and dashes."
            )
        # The value may be a secret.
        if not all(char == "\t" or char.isprintable() for char in value):
            raise ConfigError(
                f"The header {name!r} contains invalid characters.", hint="Remove line breaks."
            )
        if name.lower() in _OWN_HEADERS:
            raise ConfigError(
                f"The header {name!r} is set by the client.", hint="Remove it from headers."
            )
    return dict(headers)
