"""Command lines: global options in any place, and commands that people can run as printed."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Sequence

CONNECTION_OPTIONS = {
    **dict.fromkeys(("--url", "--api-key", "--profile", "--header", "--proxy", "--ca"), 1),
    "--trust-env": 0,
}
"""Global options that select and reach the server, and the number of values of each."""

PROGRAM_OPTIONS = {
    **CONNECTION_OPTIONS,
    **dict.fromkeys(("--json", "-q", "--quiet", "-v", "--verbose", "-V", "--version"), 0),
}
"""Global options and the number of values of each."""

ASCII_END = 128

_SECRET = frozenset({"--api-key", "--header", "--proxy"})
_USER = re.compile(r"((?:git\+)?https?://)[^/\s]*@")
"""The user name and password of a URL."""

_LISTS = ("--files-from", "--urls-from")

LOCAL_COMMANDS = ("journal", "guide", "emulator", "external", "bench compare", "bench --save")
"""Commands that do not use the server of the global options."""

_SUGGESTED_COMMAND = re.compile(rf"(`dify-kb)(?= (?!{'|'.join(LOCAL_COMMANDS)}|[^`]*--help`))")
_DATASET_ID = re.compile(r"--dataset [0-9a-f]{8}-[0-9a-f-]{27}\b")


def hoist_program_options(arguments: Sequence[str]) -> list[str]:
    """Move global options that follow the command to the front."""
    program, command = split_program_options(arguments)
    return [*program, *command]


def split_program_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the global options with their values, and the other words; both in order."""
    program: list[str] = []
    command: list[str] = []
    remaining = list(arguments)
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            return program, [*command, word, *remaining]
        name, equals, _ = word.partition("=")
        value_count = PROGRAM_OPTIONS.get(name, -1)
        if value_count < 0:
            command.append(word)
        else:
            program += [word, *(remaining[:value_count] if not equals else [])]
            remaining = remaining if equals else remaining[value_count:]
    return program, command


def format_command_line(words: Sequence[str], *extra: str) -> str:
    """Return the command line quoted for a shell; `…` replaces secrets."""
    end = words.index("--") if "--" in words else len(words)
    added = [word for word in extra if word not in words]
    return " ".join(["dify-kb", *_quote_words([*words[:end], *added, *words[end:]])])


def instruct_repetition(purpose: str, words: Sequence[str], *extra: str) -> str:
    """Return how to run a command line again, or what has to be done before."""
    command = format_command_line(words, *extra)
    notes = f"Run this command to {purpose}"
    if any((name, "-") in itertools.pairwise(words) or f"{name}=-" in words for name in _LISTS):
        notes = f"Standard input was read. Pipe the list again into this command to {purpose}"
    if has_secrets(words):
        notes += ", with your own value for …"
    return f"{notes}:\n       {command}"


def quote_word(word: str) -> str:
    """Return a word quoted for a POSIX shell; control characters and raw bytes as of bash."""
    if word.isprintable():
        return shlex.quote(word)
    letters = (
        chr(byte) if chr(byte).isalnum() and byte < ASCII_END else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{''.join(letters)}'"


def complete_hint(hint: str, arguments: Sequence[str], profile: str | None, dataset: str) -> str:
    """Return a hint whose commands can be run as printed.

    They get the connection options of the current command, and the dataset as it was typed instead
    of its id.
    """
    if dataset:
        hint = _DATASET_ID.sub(lambda _: f"--dataset {quote_word(dataset)}", hint)
    options = _quote_words(_connection_options(arguments))
    if profile and "--profile" not in " ".join(options):
        options = ["--profile", quote_word(profile), *options]
    completed = _SUGGESTED_COMMAND.sub(lambda match: " ".join([match[1], *options]), hint)
    if completed != hint and has_secrets(arguments):
        completed += " Use your own value for …"
    return completed


def has_secrets(words: Sequence[str]) -> bool:
    """Return whether a printed command line lacks secrets that were typed."""
    return any(word.partition("=")[0] in _SECRET or _USER.match(word) for word in words)


def _connection_options(arguments: Sequence[str]) -> list[str]:
    """Return the words of the options that select and reach the server."""
    program, _ = split_program_options(arguments)
    kept: list[str] = []
    while program:
        word = program.pop(0)
        name, equals, _ = word.partition("=")
        value_count = 0 if equals else PROGRAM_OPTIONS[name]
        if name in CONNECTION_OPTIONS:
            kept += [word, *program[:value_count]]
        program = program[value_count:]
    return kept


def _quote_words(words: Sequence[str]) -> list[str]:
    parts: list[str] = []
    secret = False
    for word in words:
        option, equals, _ = word.partition("=")
        if secret:
            parts.append("…")
        elif equals and option in _SECRET:
            parts.append(f"{option}=…")
        else:
            parts.append(quote_word(_USER.sub(r"\1…@", word)))
        secret = not secret and word in _SECRET
    return parts
