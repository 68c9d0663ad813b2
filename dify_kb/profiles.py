"""Profiles: named servers with their keys and default datasets, in the configuration file."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attrs import define, field, frozen

from .errors import ConfigError

if TYPE_CHECKING:
    from ssl import SSLContext

PROFILE_VARIABLE = "DIFY_PROFILE"
"""The environment variable that selects a profile."""

DEFAULT_KEY = "default_profile"
"""The key of the file that names the profile to use if no other address is configured."""

PROFILE_KEYS = ("url", "api_key", "key_command", "key_file", "ca", "dataset")
KEY_SOURCES = ("api_key", "key_command", "key_file")

KEY_COMMAND_TIMEOUT = 60.0
"""Seconds that `key_command` may take: a password manager may ask for its password."""


MAX_OUTPUT = 64 * 1024
"""Bytes that are read of the output of `key_command`, and of its errors."""

PIPE_TIMEOUT = 1.0
"""Seconds that the output may take to arrive after the end of `key_command`."""


@frozen(kw_only=True)
class Profile:
    """A server, and where its API key comes from."""

    name: str
    url: str
    dataset: str | None = None
    """The dataset of commands without `--dataset`."""

    api_key: str | None = field(default=None, repr=False)
    key_command: str | None = None
    """A command whose first line of output is the key. It is run without a shell."""

    key_file: Path | None = None
    """A file whose first line is the key."""

    ca: Path | None = None
    """A PEM file with the certificate authorities to trust; None trusts those of the system."""

    def create_ssl_context(self) -> SSLContext | None:
        """Return an SSL context that trusts `ca`; None without it. Reads the file.

        Raises:
            ConfigError: the file cannot be read.
        """
        return None if self.ca is None else load_ca_file(self.ca, f"ca of profile {self.name!r}")

    def read_key(self, *, timeout: float = KEY_COMMAND_TIMEOUT) -> str | None:
        """Return the API key; None if the profile does not configure one.

        Runs `key_command` and blocks for up to `timeout` seconds.

        Raises:
            ConfigError: the command fails or takes too long, the file cannot be read, or the key is
                empty. The message contains nothing that the command printed on stdout.
        """
        if self.key_command is not None:
            return self._first_line(
                self._run_key_command(self.key_command, timeout), "key_command printed no key"
            )
        if self.key_file is not None:
            return self._first_line(
                self._read_key_file(self.key_file), f"key file {self.key_file} is empty"
            )
        return self.api_key

    def _first_line(self, text: str, problem: str) -> str:
        line = text.strip().partition("\n")[0].strip()
        if not line:
            raise ConfigError(
                f"Profile {self.name!r}: {problem}.",
                hint="Store a knowledge API key (dataset-…) in its first line.",
            )
        return line

    def _read_key_file(self, path: Path) -> str:
        try:
            return _read_file(path).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"Profile {self.name!r}: cannot read key file {path}: {_reason(error)}.",
                hint="Correct key_file, or write the key to that file.",
            ) from error

    def _run_key_command(self, command: str, timeout: float) -> str:
        # Only the program: an argument may be the key itself.
        label = f"Profile {self.name!r}: key_command ({command.partition(' ')[0]} …)"
        try:
            code, output, errors = _run_command(
                shlex.split(command, posix=os.name == "posix"), timeout
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"{label} did not end within {timeout:g} s.",
                hint="Unlock the password manager, or run the command to see what it waits for.",
            ) from None
        except (OSError, ValueError, IndexError) as error:
            raise ConfigError(
                f"{label} cannot be run: {_reason(error)}.",
                hint="Pass a program with arguments; for shell syntax use sh -c '…'.",
            ) from error
        if code:
            told = errors.decode(errors="replace").strip().splitlines()
            reason = f": {told[-1]}" if told else ""
            raise ConfigError(
                f"{label} failed with exit code {code}{reason}",
                hint="Run the command in a terminal to correct it.",
            )
        return output.decode(errors="replace")


@define(kw_only=True)
class ProfileFile:
    """The content of a configuration file."""

    path: Path
    profiles: Mapping[str, Profile]
    default: str | None

    def get(self, name: str) -> Profile:
        """Return a profile.

        Raises:
            ConfigError: the file does not contain it.
        """
        if name in self.profiles:
            return self.profiles[name]
        known = ", ".join(self.profiles)
        raise ConfigError(
            f"Unknown profile {name!r}.",
            hint=f"Choose one of: {known} (from {self.path})."
            if known
            else f'Add it to {self.path}: [{name}], then url = "https://dify.example/v1".',
        )


def load_ca_file(file: Path, option: str) -> SSLContext:
    """Return an SSL context that trusts the certificate authorities of a PEM file, and no others.

    Raises:
        ConfigError: the file cannot be read; the hint names `option`.
    """
    from ssl import SSLError, create_default_context

    try:
        return create_default_context(cafile=file)
    except (OSError, SSLError) as error:
        raise ConfigError(
            f"Cannot read CA certificates from {file}: {error.strerror or error}.",
            hint=f"Pass a PEM file ({option}).",
        ) from error


def config_file() -> Path:
    """Return the path of the configuration file.

    It is `dify-kb/config.toml` in `XDG_CONFIG_HOME` (`~/.config`), on Windows in `%APPDATA%`.
    """
    variable = "APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME"
    folder = os.environ.get(variable) or os.path.expanduser("~/.config")  # noqa: PTH111 -- keeps ~ without a home
    return Path(folder) / "dify-kb" / "config.toml"


def read_profiles(path: Path | None = None) -> ProfileFile:
    """Read the configuration file; a missing file has no profiles.

    Raises:
        ConfigError: the file cannot be read or parsed, has unknown or contradicting keys, or
            contains an API key that other users can read.
    """
    path = config_file() if path is None else path
    try:
        text = _read_file(path).decode()
        settings = tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return ProfileFile(path=path, profiles={}, default=None)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Cannot read the configuration file {path}: {_reason(error)}.",
            hint="Correct the file; it is TOML in UTF-8.",
        ) from error
    default = settings.pop(DEFAULT_KEY, None)
    profiles = {name: _parse_profile(path, name, table) for name, table in settings.items()}
    content = ProfileFile(path=path, profiles=profiles, default=default)
    if default is not None:
        content.get(_require_text(path, DEFAULT_KEY, default))
    return content


def find_profile(name: str | None = None) -> Profile | None:
    """Return the profile of this name, of `DIFY_PROFILE`, or the default profile of the file.

    Returns None if none of them is set. The default profile does not apply while
    `DIFY_BASE_URL` is set.

    Raises:
        ConfigError: the profile does not exist, or the configuration file is invalid.
    """
    name = name or os.environ.get(PROFILE_VARIABLE)
    if name:
        return read_profiles().get(name)
    if os.environ.get("DIFY_BASE_URL"):
        return None
    content = read_profiles()
    return content.get(content.default) if content.default else None


def require_profile(name: str | None = None) -> Profile:
    """Return the profile of this name, of `DIFY_PROFILE`, or the default profile of the file.

    Raises:
        ConfigError: none of them is set, the profile does not exist, or the configuration file is
            invalid.
    """
    profile = find_profile(name)
    if profile is None:
        raise ConfigError(
            "No profile is selected.",
            hint=f"Pass its name, set {PROFILE_VARIABLE}, or add {DEFAULT_KEY} to {config_file()}.",
        )
    return profile


def _parse_profile(path: Path, name: str, table: object) -> Profile:
    if not isinstance(table, Mapping):
        raise ConfigError(
            f"Unknown key {name!r} in {path}.",
            hint=f"Write it in a profile like [prod]; outside of profiles only {DEFAULT_KEY} is"
            " possible.",
        )
    unknown = [key for key in table if key not in PROFILE_KEYS]
    if unknown:
        keys = ", ".join(map(repr, unknown))
        raise ConfigError(
            f"Unknown key {keys} in profile {name!r} of {path}.",
            hint=f"Use {', '.join(PROFILE_KEYS)}.",
        )
    values = {key: _require_text(path, f"{name}.{key}", value) for key, value in table.items()}
    if "url" not in values:
        raise ConfigError(
            f"Profile {name!r} of {path} has no url.",
            hint='Add url = "https://dify.example/v1".',
        )
    sources = [key for key in KEY_SOURCES if key in values]
    if len(sources) > 1:
        raise ConfigError(
            f"Profile {name!r} of {path} sets {' and '.join(sources)}.",
            hint="Keep one of them.",
        )
    if "api_key" in values:
        _check_private(path)
    key_file, ca = (
        None if name is None else path.parent / os.path.expanduser(name)  # noqa: PTH111
        for name in (values.get("key_file"), values.get("ca"))
    )
    return Profile(
        name=name,
        url=values["url"],
        dataset=values.get("dataset"),
        api_key=values.get("api_key"),
        key_command=values.get("key_command"),
        key_file=key_file,
        ca=ca,
    )


def _require_text(path: Path, key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(
            f"Invalid value of {key!r} in {path}.", hint="Pass a text in quotes, not empty."
        )
    return value


def _check_private(path: Path) -> None:
    """Check that only its owner can read a file; Windows protects the folder itself."""
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"{path} contains an API key and is accessible to other users.",
            hint=f"Run: chmod 600 {shlex.quote(str(path))}. Or use key_command or key_file.",
        )


def _read_file(path: Path) -> bytes:
    """Return the content of a regular file: a FIFO would block, and a device might never end.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb", opener=_open_nonblocking) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(None, "not a regular file")
        return file.read()


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _run_command(arguments: Sequence[str], timeout: float) -> tuple[int, bytes, bytes]:
    """Run a command; return its exit code, and the beginnings of its output and its errors.

    Programs that it leaves behind, such as an agent, are not waited for.

    Raises:
        OSError: the command cannot be run.
        subprocess.TimeoutExpired: it did not end in time; it is killed.
    """
    process = subprocess.Popen(  # noqa: S603 -- the user's own configuration
        arguments,
        bufsize=0,
        stdin=subprocess.DEVNULL,  # standard input may be a list of files
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    outputs = bytearray(), bytearray()
    readers = [
        threading.Thread(target=_read_pipe, args=pair, daemon=True)
        for pair in zip((process.stdout, process.stderr), outputs, strict=True)
    ]
    try:
        for reader in readers:
            reader.start()
        code = process.wait(timeout)
    except BaseException:  # also Ctrl-C
        process.kill()
        process.wait()
        raise
    (readers[1] if code else readers[0]).join(PIPE_TIMEOUT)
    return code, bytes(outputs[0]), bytes(outputs[1])


def _read_pipe(pipe: IO[bytes], output: bytearray) -> None:
    with pipe:
        while len(output) < MAX_OUTPUT and (block := pipe.read(MAX_OUTPUT)):
            output += block


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
