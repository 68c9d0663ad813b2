"""Complete profiles and dataset names in the shell: from files, without a request."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import typer

from dify_kb import profiles
from dify_kb.errors import ConfigError

PROGRAM = "dify-kb"

COMPLETE_VARIABLE = "_DIFY_KB_COMPLETE"
"""The environment variable by which typer's shell scripts ask for completions."""

MAX_NAMES = 1000
"""Dataset names that are remembered per server."""


def is_requested() -> bool:
    """Return whether the shell asks for completions."""
    return COMPLETE_VARIABLE in os.environ


def complete(program: Callable[..., object]) -> int:
    """Print the completions of the command line in the environment; never print an error."""
    printed = io.StringIO()
    word = _join_bash_words()
    try:
        with redirect_stdout(printed), redirect_stderr(io.StringIO()):
            program([], prog_name=PROGRAM)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except Exception:  # noqa: BLE001 -- a message would be printed into the command line
        return 1
    else:
        code = 0
    text = printed.getvalue()
    if word is not None:
        text = "".join(f"{_format_for_bash(line, word)}\n" for line in text.splitlines())
    sys.stdout.write(text)
    return code


def complete_profile(incomplete: str) -> list[str]:
    """Return the profiles of the configuration file that begin with a text."""
    return [name for name in _read_profile_file().profiles if name.startswith(incomplete)]


def complete_dataset(context: typer.Context, incomplete: str) -> list[str]:
    """Return the remembered datasets that begin with a text, with a profile as `prod:Handbook`."""
    names = [*_iter_names(context)]
    return [name for name in names if name.startswith(incomplete)]


def _iter_names(context: typer.Context) -> Iterator[str]:
    remembered = _read_cache()
    content = _read_profile_file()
    options = context.find_root().params
    name = options.get("profile") or os.environ.get(profiles.PROFILE_VARIABLE)
    url = options.get("url") or os.environ.get("DIFY_BASE_URL")
    if not options.get("url") and (name or (not url and content.default)):
        profile = content.profiles.get(name or content.default or "")
        url = profile and profile.url
    yield from remembered.get(_normalize_address(url or ""), ())
    for profile in content.profiles.values():
        for dataset in remembered.get(_normalize_address(profile.url), ()):
            yield f"{profile.name}:{dataset}"


def remember_datasets(
    address: str | None, names: Sequence[str], *, everything: bool = False
) -> None:
    """Store names of datasets for completion; a file that cannot be written is ignored.

    Args:
        everything: whether these are all datasets of the server, so that others are forgotten.
    """
    if not address:
        return
    cache = _read_cache()
    key = _normalize_address(address)
    known = () if everything else cache.get(key, ())
    updated = [*dict.fromkeys([*names, *known])][:MAX_NAMES]
    if updated == cache.get(key):
        return
    file = cache_file()
    temporary = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**cache, key: updated}), encoding="utf-8")
        temporary.replace(file)


def cache_file() -> Path:
    """Return the path of the remembered names: `dify-kb/datasets.json` in `XDG_CACHE_HOME`."""
    variable = "LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME"
    folder = os.environ.get(variable) or os.path.expanduser("~/.cache")  # noqa: PTH111 -- keeps ~ without a home
    return Path(folder) / "dify-kb" / "datasets.json"


def _read_cache() -> dict[str, list[str]]:
    try:
        cache: Any = json.loads(cache_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(cache, dict):
        return {}
    return {
        address: [name for name in names if isinstance(name, str)]
        for address, names in cache.items()
        if isinstance(names, list)
    }


def _read_profile_file() -> profiles.ProfileFile:
    try:
        return profiles.read_profiles()
    except ConfigError:
        return profiles.ProfileFile(path=Path(), profiles={}, default=None)


def _normalize_address(address: str) -> str:
    return address.strip().rstrip("/").removesuffix("/v1").rstrip("/")


def _join_bash_words() -> str | None:
    """Join the words that bash splits at `:` and `=`: `prod`, `:`, `Hand` is one argument.

    Returns the word that is completed, as it was typed; None if the shell is not bash.
    """
    if os.environ[COMPLETE_VARIABLE] != "complete_bash":
        return None
    words, joined = os.environ.get("COMP_WORDS", "").split("\n"), list[str]()
    last = int(os.environ.get("COMP_CWORD", "0"))
    position = 0
    for number, word in enumerate(words):
        follows = bool(joined) and (word[:1] in {":", "="} or joined[-1][-1:] in {":", "="})
        joined = [*joined[:-1], joined[-1] + word] if follows else [*joined, word]
        position = len(joined) - 1 if number <= last else position
    os.environ["COMP_WORDS"] = "\n".join(joined)
    os.environ["COMP_CWORD"] = str(position)
    return joined[position]


def _format_for_bash(completion: str, word: str) -> str:
    """Return a completion as bash inserts it: quoted, and without what precedes a colon."""
    if word[:1] in {"'", '"'}:  # within quotes, bash does not split at colons
        return completion
    start = completion.rfind(":", 0, len(word)) + 1 if ":" in word else 0
    return re.sub(r"([^\w@%+=:,./-])", r"\\\1", completion[start:])
