"""The address and the API key of a server."""

from __future__ import annotations

import pytest

from dify_kb import AsyncClient, ConfigError
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
        "http://dify test/v1",
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


@pytest.mark.parametrize("concurrency", [-1, -8])
def test_a_concurrency_below_one_is_refused(concurrency: int) -> None:
    """The first request would wait forever."""
    with pytest.raises(ConfigError, match="concurrency"):
        AsyncClient("https://dify.test", KEY, concurrency=concurrency)
