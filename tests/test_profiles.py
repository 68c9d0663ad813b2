"""Profiles: the configuration file, its errors, and the clients that use it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from dify_kb import AsyncClient, Client, ConfigError
from dify_kb.emulator import Emulator
from dify_kb.profiles import Profile, config_file, find_profile, read_profiles, require_profile

PROD = '[prod]\nurl = "https://dify.example"\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the configuration file, without the variables of the environment."""
    for name in ("DIFY_BASE_URL", "DIFY_API_KEY", "DIFY_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "dify-kb" / "config.toml"
    path.parent.mkdir()
    return path


def write(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o600)


def test_config_file_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    assert config_file() == Path("/home/ada/.config/dify-kb/config.toml")

    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/ada")
    assert config_file() == Path("/etc/ada/dify-kb/config.toml")


def test_a_missing_file_has_no_profiles(file: Path) -> None:
    assert read_profiles().profiles == {}
    assert find_profile() is None
    assert not file.exists()


def test_a_profile_is_selected_by_name_variable_or_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, f'default_profile = "prod"\n{PROD}[stage]\nurl = "https://stage.example"\n')

    assert require_profile("stage").url == "https://stage.example"
    assert require_profile().name == "prod"
    monkeypatch.setenv("DIFY_PROFILE", "stage")
    assert require_profile().name == "stage"
    assert require_profile("prod").name == "prod"


def test_the_default_profile_yields_to_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, f'default_profile = "prod"\n{PROD}')
    monkeypatch.setenv("DIFY_BASE_URL", "https://other.example")

    assert find_profile() is None
    assert require_profile("prod").url == "https://dify.example"


def test_require_profile_says_how_to_select_one(file: Path) -> None:
    write(file, PROD)

    with pytest.raises(ConfigError, match="No profile is selected") as caught:
        require_profile()
    assert "DIFY_PROFILE" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "summary", "hint"),
    [
        (PROD, "Unknown profile 'nope'", "one of: prod (from "),
        ("", "Unknown profile 'nope'", "[nope]"),
        ("[prod\n", "line 1", "TOML"),
        ("url = 1\nurl = 2\n", "line 2", "TOML"),
        (f'{PROD}ulr = "x"\nkye = "y"\n', "Unknown key 'ulr', 'kye' in profile 'prod'", "key_file"),
        ('url = "x"\n', "Unknown key 'url'", "[prod]"),
        ("[prod]\n", "has no url", "https://"),
        ("[prod]\nurl = 5\n", "Invalid value of 'prod.url'", "text"),
        ('[prod]\nurl = ""\n', "Invalid value of 'prod.url'", "text"),
        (f'{PROD}api_key = "a"\nkey_file = "b"\n', "sets api_key and key_file", "one of them"),
        (f'default_profile = "x"\n{PROD}', "Unknown profile 'x'", "prod"),
    ],
)
def test_errors_name_the_place_and_what_is_known(
    file: Path, text: str, summary: str, hint: str
) -> None:
    write(file, text)

    with pytest.raises(ConfigError) as caught:
        require_profile("nope")

    assert summary in caught.value.summary
    assert hint in caught.value.hint


def test_a_file_that_is_not_utf_8_is_an_error(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="Cannot read the configuration file"):
        read_profiles()


def test_a_key_that_others_can_read_is_refused(file: Path) -> None:
    write(file, f'{PROD}api_key = "dataset-Secret123"\n')
    assert require_profile("prod").read_key() == "dataset-Secret123"

    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(ConfigError, match="accessible to other users") as caught:
            require_profile("prod")
        assert f"chmod 600 {file}" in caught.value.hint
        assert "Secret" not in str(caught.value)


def test_the_key_is_read_from_a_file_next_to_the_configuration(file: Path) -> None:
    write(file, f'{PROD}key_file = "prod.key"\n')
    (file.parent / "prod.key").write_text("dataset-Secret123\nanother line\n")

    profile = require_profile("prod")

    assert profile.read_key() == "dataset-Secret123"
    assert "Secret" not in repr(profile)


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_missing_or_empty_key_file_is_an_error(file: Path, content: str | None) -> None:
    if content is not None:
        (file.parent / "k").write_text(content)

    with pytest.raises(ConfigError, match=r"key file .*k"):
        Profile(name="prod", url="x", key_file=file.parent / "k").read_key()


def make_profile(code: str) -> Profile:
    """Return a profile whose key is printed by Python code."""
    return Profile(name="prod", url="x", key_command=f"{sys.executable} -c '{code}'")


def test_the_key_is_the_first_line_of_a_command() -> None:
    assert make_profile('print("dataset-1\\nuser: me")').read_key() == "dataset-1"
    assert Profile(name="prod", url="x").read_key() is None


def test_a_failed_command_shows_its_stderr_and_never_its_stdout() -> None:
    code = 'import sys; print("dataset-Secret123"); sys.exit("The store is locked")'

    with pytest.raises(ConfigError) as caught:
        make_profile(code).read_key()

    assert "exit code 1: The store is locked" in caught.value.summary
    assert "Secret" not in str(caught.value)


def test_a_helper_that_the_command_leaves_behind_is_not_waited_for() -> None:
    """Agents of password managers may keep the pipes of the command open."""
    helper = "import time; time.sleep(20)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {helper!r}])"

    started = time.monotonic()
    profile = Profile(
        name="prod", url="x", key_command=shlex.join([sys.executable, "-c", f"{code}; print('k')"])
    )

    assert profile.read_key() == "k"
    assert time.monotonic() - started < 15


def test_endless_output_of_a_command_is_an_error() -> None:
    """Not 60 seconds of output in memory."""
    with pytest.raises(ConfigError, match=r"failed with exit code|did not end within"):
        make_profile('while True: print("dataset-1")').read_key(timeout=20)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="requires FIFOs")
def test_fifos_and_devices_are_not_read(file: Path) -> None:
    """Reading a FIFO would wait for a writer, reading a device would never end."""
    fifo = file.parent / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        with pytest.raises(ConfigError, match="not a regular file"):
            Profile(name="prod", url="x", key_file=path).read_key()

    fifo.rename(file)
    with pytest.raises(ConfigError, match="not a regular file"):
        read_profiles()


def test_a_hanging_command_is_ended() -> None:
    with pytest.raises(ConfigError, match=r"did not end within 0.1 s"):
        make_profile("import time; time.sleep(60)").read_key(timeout=0.1)


@pytest.mark.parametrize("command", ["/nowhere/program x", "unclosed 'quote", " "])
def test_a_command_that_cannot_be_run_is_an_error(command: str) -> None:
    with pytest.raises(ConfigError, match="cannot be run"):
        Profile(name="prod", url="x", key_command=command).read_key()


def test_a_command_that_prints_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="printed no key"):
        make_profile("pass").read_key()


def test_a_command_does_not_read_standard_input() -> None:
    """Standard input may be the list of files of a load."""
    assert make_profile('import sys; print("k" + sys.stdin.read())').read_key() == "k"


async def test_clients_are_created_from_a_profile(
    file: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, f'[test]\nurl = "{emulator.url}"\napi_key = "{emulator.api_key}"\n')

    async with AsyncClient.from_profile("test") as client:
        assert (await client.datasets.list()).total == 0
    monkeypatch.setenv("DIFY_PROFILE", "test")
    with Client.from_profile(concurrency=2) as blocking:
        assert blocking.datasets.list().total == 0


def test_a_profile_without_a_key_uses_that_of_the_environment(
    file: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(file, f'[test]\nurl = "{emulator.url}"\n')
    monkeypatch.setenv("DIFY_API_KEY", emulator.api_key)

    with Client.from_profile("test") as client:
        assert client.datasets.list().total == 0


def test_an_unknown_profile_of_a_client_is_an_error(file: Path) -> None:
    write(file, PROD)

    with pytest.raises(ConfigError, match="Unknown profile 'nope'"):
        AsyncClient.from_profile("nope")
    with pytest.raises(ConfigError, match="No profile is selected"):
        Client.from_profile()
