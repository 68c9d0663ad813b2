"""The address and the API key of a server."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given as fuzz
from hypothesis import settings
from hypothesis import strategies as st

from dify_kb import AsyncClient, ConfigError, KnowledgeError, Policy, Retry, Timeout
from dify_kb.arguments import parse_duration
from dify_kb.config import Config

KEY = "dataset-Secret123"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFY_BASE_URL", raising=False)
    monkeypatch.delenv("DIFY_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://dify.test/v1", "https://dify.test/v1"),
        ("https://dify.test/v1/", "https://dify.test/v1"),
        ("https://dify.test", "https://dify.test/v1"),
        ("https://dify.test/", "https://dify.test/v1"),
        ("https://dify.test//", "https://dify.test/v1"),
        ("  https://dify.test/v1\n", "https://dify.test/v1"),
        ("http://dify.test:5001", "http://dify.test:5001/v1"),
        ("https://dify.test/some/prefix", "https://dify.test/some/prefix/v1"),
        ("https://dify.test/some/prefix/v1/", "https://dify.test/some/prefix/v1"),
        ("https://dify.test/apiv1", "https://dify.test/apiv1/v1"),
        ("HTTPS://dify.test/v1", "https://dify.test/v1"),
        ("http://[::1]:5001", "http://[::1]:5001/v1"),
        ("http://127.0.0.1:5001/v1", "http://127.0.0.1:5001/v1"),
        ("http://dify.test:/v1", "http://dify.test/v1"),
        ("http://dify.test./v1", "http://dify.test./v1"),
        ("http://api_1:5001", "http://api_1:5001/v1"),
        ("http://bücher.test/größe", "http://xn--bcher-kva.test/gr%C3%B6%C3%9Fe/v1"),
    ],
)
def test_an_address_is_accepted_with_or_without_v1(given: str, expected: str) -> None:
    """People copy the address from a browser, the documentation or an environment variable."""
    assert Config.from_environment(given, KEY).base_url == expected


@pytest.mark.parametrize(
    "given",
    [
        "dify.test/v1",
        "dify.test:5001",
        "localhost:5001/v1",
        "file:///etc/passwd",
        "ftp://dify.test/v1",
        "https://",
        "https:///v1",
        "https://dify.test/v1?key=1",
        "https://dify.test/v1#top",
        "http://[::1/v1",
        "http://dify.test:port/v1",
        "http://dify.test:99999/v1",
        "http://dify.test:0/v1",
        "http://dify.test:-1/v1",
        "http://dify test/v1",
        "http://exa..mple/v1",
        "http://.example/v1",
        "http://ex\x00ample/v1",
        "http://example/v1\x00",
        "http://exa\nmple/v1",
        "http://exa\udcffmple/v1",
        "http://xn--a\u200b..b/v1",
        f"http://{'a' * 64}.test/v1",
        f"http://{'ü' * 64}.test/v1",
        "http://999.1.1.1/v1",
        "http://[::g]/v1",
        "http://a[b]/v1",
        "http://%41/v1",
        "   ",
    ],
)
def test_an_invalid_address_is_refused_before_anything_is_sent(given: str) -> None:
    """Otherwise the first call fails with an error of a library, or reads a file."""
    with pytest.raises(ConfigError, match="Invalid server address") as raised:
        Config.from_environment(given, KEY)

    assert "https://dify.example/v1" in raised.value.hint


@pytest.mark.parametrize(
    "given",
    [
        "https://user:pa55@dify.test/v1",
        "https://pa55@dify.test",
        "ftp://user:pa55@dify.test",
        "user:pa55@dify.test/v1",
        "https://user:pa55@[::1/v1",
    ],
)
@pytest.mark.parametrize("key", [KEY, None])
def test_a_password_in_the_address_is_refused_and_not_shown(given: str, key: str | None) -> None:
    """Every log line about the server would contain it."""
    with pytest.raises(ConfigError, match="password") as raised:
        Config.from_environment(given, key)

    assert "pa55" not in str(raised.value)


def test_a_missing_address_error_names_the_remedy() -> None:
    """There is no default host, to avoid sending documents to a cloud by accident."""
    with pytest.raises(ConfigError, match="Missing server address") as raised:
        Config.from_environment(None, KEY)

    assert "DIFY_BASE_URL" in raised.value.hint


def test_a_missing_key_error_names_the_server() -> None:
    with pytest.raises(ConfigError, match=r"Missing API key for https://dify\.test/v1\.") as raised:
        Config.from_environment("https://dify.test", None)

    assert "DIFY_API_KEY" in raised.value.hint


def test_missing_arguments_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFY_BASE_URL", "https://env.test")
    monkeypatch.setenv("DIFY_API_KEY", "dataset-env")

    config = Config.from_environment(None, None)

    assert (config.base_url, config.api_key) == ("https://env.test/v1", "dataset-env")


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test server in the call must not be replaced by a production server of the environment."""
    monkeypatch.setenv("DIFY_BASE_URL", "https://env.test")
    monkeypatch.setenv("DIFY_API_KEY", "dataset-env")

    config = Config.from_environment("https://call.test", KEY)

    assert (config.base_url, config.api_key) == ("https://call.test/v1", KEY)


@pytest.mark.parametrize("key", [f"{KEY}\n", f"Bearer {KEY}", f"{KEY}\r\nX-Evil: 1", f"{KEY}é"])
def test_a_key_invalid_in_a_header_is_refused_and_not_shown(key: str) -> None:
    """A key copied with its line break must not cause a 401 or an additional header."""
    with pytest.raises(ConfigError, match="API key") as raised:
        Config.from_environment("https://dify.test", key)

    assert KEY not in str(raised.value)


def test_a_key_is_in_no_repr() -> None:
    """Reprs are shown in logs, tracebacks and bug reports."""
    config = Config.from_environment("https://dify.test", KEY)
    client = AsyncClient("https://dify.test", KEY)

    assert KEY not in repr(config)
    assert repr(client) == "<AsyncClient https://dify.test/v1>"


@pytest.mark.parametrize("path", ["a\x00b", "~no-such-user-1/a.db", "?version=\x00", "a?b=\x00"])
def test_an_invalid_address_of_the_embedded_server_is_refused(path: str) -> None:
    with pytest.raises(ConfigError):
        AsyncClient(f"emulator:{path}")


@pytest.mark.parametrize("concurrency", [-1, -8])
def test_a_concurrency_below_one_is_refused(concurrency: int) -> None:
    """The first request would wait forever."""
    with pytest.raises(ConfigError, match="concurrency"):
        AsyncClient("https://dify.test", KEY, concurrency=concurrency)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3, 3),
        (0.5, 0.5),
        (0, 0),
        ("90", 90),
        ("500ms", 0.5),
        ("30s", 30),
        ("1.5m", 90),
        ("30 min", 1800),
        ("2H", 7200),
        ("1h30m", 5400),
        ("1d 2h", 93600),
        (timedelta(minutes=2), 120),
    ],
)
def test_durations_are_taken_as_people_write_them(value: Any, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value", [-1, math.nan, math.inf, 10**400, "", "soon", "-5", "5 weeks", "1h30", timedelta(-1)]
)
def test_an_invalid_duration_names_the_argument(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"for timeout\."):
        parse_duration(value, "timeout")


def test_a_single_timeout_sets_all_of_them() -> None:
    """As in httpx."""
    expected = Timeout(connect=3, read=3, answer=3, progress=3)

    for value in (3, 3.0, "3s", timedelta(seconds=3)):
        assert AsyncClient("http://a.test", KEY, timeout=value)._sender.policy.timeout == expected
    assert AsyncClient("http://a.test", KEY)._sender.policy.timeout == Timeout()


def test_timeouts_and_retries_take_durations() -> None:
    assert Timeout(connect="500ms", read=timedelta(minutes=1)) == Timeout(connect=0.5, read=60)
    assert Retry(total="2m").total == 120
    assert Retry(total=None).total is None


@pytest.mark.parametrize(
    ("create", "name"),
    [
        (lambda: Timeout(connect=cast("float", [])), "Timeout.connect"),
        (lambda: Timeout(read=cast("float", None)), "Timeout.read"),
        (lambda: Retry(total=cast("float", True)), "Retry.total"),  # noqa: FBT003 -- a wrong type
        (lambda: Retry(read_attempts=cast("int", "3")), "Retry.read_attempts"),
    ],
)
def test_a_wrong_type_in_a_setting_names_the_field(create: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be"):
        create()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_url", 5),
        ("base_url", b"http://a.test"),
        ("api_key", 5),
        ("timeout", [3]),
        ("timeout", True),
        ("retry", 3),
        ("concurrency", "8"),
        ("concurrency", True),
        ("headers", ["a"]),
        ("headers", {"a": 5}),
        ("headers", {5: "a"}),
        ("proxy", 5),
        ("ssl", False),
        ("session", object()),
        ("on_event", "print"),
        ("policy", {}),
    ],
)
def test_a_wrong_type_names_the_argument(name: str, value: object) -> None:
    """Otherwise the first call fails with an AttributeError far from its cause."""
    arguments: dict[str, Any] = {"base_url": "http://a.test", "api_key": KEY, name: value}

    with pytest.raises(TypeError, match=rf"^{name}(\[|\b).* must be "):
        AsyncClient(**arguments)


@pytest.mark.parametrize(
    "headers",
    [
        {"X Y": "a"},
        {"": "a"},
        {"X-Ü": "a"},
        {"X": "Secret\r\nY: b"},
        {"X": "Secret\x00"},
        {"X": "Secret\udcff"},
        {"Content-Length": "5"},
        {"transfer-encoding": "chunked"},
    ],
)
def test_a_header_that_cannot_be_sent_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="header") as raised:
        AsyncClient("http://a.test", KEY, headers=headers)

    assert "Secret" not in str(raised.value)


TEXTS = st.text(max_size=40) | st.sampled_from(
    ["http://", "https://a.test:1", "socks5://a", "emulator", "http://[::1]", "http://a@b", "\x00"]
)


@settings(max_examples=150, deadline=None)
@fuzz(
    base_url=st.none() | TEXTS | st.builds("http://{}".format, TEXTS),
    api_key=st.none() | TEXTS,
    headers=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=2),
    proxy=st.none() | TEXTS | st.builds("http://{}".format, TEXTS),
    timeout=st.none() | TEXTS | st.floats() | st.integers() | st.timedeltas(),
)
def test_any_text_makes_a_client_or_an_error_of_this_package(
    base_url: Any, api_key: Any, headers: Any, proxy: Any, timeout: Any
) -> None:
    with contextlib.suppress(KnowledgeError):
        AsyncClient(base_url, api_key, headers=headers, proxy=proxy, timeout=timeout)


@settings(max_examples=25, deadline=None)
@fuzz(
    host=st.text("ab0-_.üß例\u00ad\u3002xn@%", min_size=1, max_size=12),
    proxy=st.none() | st.text("ab0-_.üß例@:", min_size=1, max_size=12),
)
async def test_any_host_is_refused_or_fails_to_connect(host: str, proxy: str | None) -> None:
    """What a client accepts must not fail in aiohttp, the resolver or the codec of names."""
    once = Policy(timeout=Timeout(connect=0.2, read=0.2), retry=Retry(read_attempts=1))
    try:
        client = AsyncClient(
            f"http://{host}.invalid:1",
            KEY,
            headers={"X-Name": host},
            proxy=proxy and f"http://{proxy}.invalid:1",
            policy=once,
        )
    except ConfigError:
        return
    async with client:
        with pytest.raises(KnowledgeError):
            await client.datasets.list()
