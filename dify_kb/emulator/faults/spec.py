"""Parse fault words for API calls, indexing runs and model calls."""

from __future__ import annotations

import re
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from attrs import frozen

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WORD: Final = re.compile(
    r"(?P<commit>commit-then-)?(?:"
    r"(?P<plain>ok|reset|close|truncate|empty|login-page|413-early"
    r"|rate-limit|document-limit|vector-limit|provider-not-initialize|plugin-daemon|being-indexed"
    r"|redirect)"
    r"|(?P<timed>stall|trickle|late|stale-list) (?P<seconds>\d+(?:\.\d+)?|\.\d+)s?"
    r"(?: (?P<option>silent|always))?"
    r"|reset-after (?P<after>\d+)(?P<percent>%)?"
    r"|slow-read (?P<rate>[1-9]\d*)"
    r"|(?P<status>[45]\d\d)(?P<html>-html)?(?: retry-after=(?P<hint>[ -~]+?))?)"
)

_REPEATED_WORD: Final = re.compile(r"(?P<word>.+?)(?: x(?P<times>[1-9]\d{0,5}))?", re.DOTALL)

_HELP: Final = (
    "Use ok, reset, close, 'reset-after 50%', 503, 503-html, '429 retry-after=1', 413-early,"
    " rate-limit, document-limit, vector-limit, provider-not-initialize, plugin-daemon,"
    " being-indexed, truncate, empty, login-page, redirect, 'stall 0.2', 'slow-read 1000',"
    " 'trickle 2', 'late 2', 'late 2 silent', or for documents.list 'stale-list 5' or"
    " 'stale-list 5 always'. Prefix commit-then- to process the call before it fails;"
    " append ' x20' for 20 calls."
)


class FaultKind(StrEnum):
    """Kinds of API call faults."""

    OK = "ok"
    RESET = "reset"
    CLOSE = "close"
    RESET_AFTER = "reset-after"
    TRUNCATE = "truncate"
    RATE_LIMIT = "rate-limit"
    DOCUMENT_LIMIT = "document-limit"
    VECTOR_LIMIT = "vector-limit"
    NO_PROVIDER = "provider-not-initialize"
    PLUGIN_DAEMON = "plugin-daemon"
    BEING_INDEXED = "being-indexed"
    EMPTY = "empty"
    LOGIN_PAGE = "login-page"
    REDIRECT = "redirect"
    EARLY = "413-early"
    STALL = "stall"
    TRICKLE = "trickle"
    LATE = "late"
    STALE_LIST = "stale-list"
    SLOW_READ = "slow-read"
    STATUS = "status"
    PAGE = "page"


_OPTION_KINDS: Final = {"silent": FaultKind.LATE, "always": FaultKind.STALE_LIST}
"""Options after the seconds, with the only kind that accepts each."""

_COMMITTING_KINDS: Final = frozenset(
    {
        FaultKind.RESET,
        FaultKind.CLOSE,
        FaultKind.TRUNCATE,
        FaultKind.EMPTY,
        FaultKind.LOGIN_PAGE,
        FaultKind.STALL,
        FaultKind.STATUS,
        FaultKind.PAGE,
        FaultKind.REDIRECT,
        FaultKind.RATE_LIMIT,
        FaultKind.DOCUMENT_LIMIT,
        FaultKind.VECTOR_LIMIT,
    }
)
"""Kinds that accept `commit-then-`; the others define whether the call is processed."""


@frozen
class Fault:
    """A fault of one API call; with `commit` the call is processed before it fails."""

    word: str
    kind: FaultKind
    commit: bool = False
    seconds: float = 0.0
    silent: bool = False
    """Whether the connection of a `late` call stays open without a response."""

    always: bool = False
    """Whether requests with `Cache-Control: no-cache` get the stale list too."""

    amount: int = 0
    """For `reset-after`, bytes or percent of the body; for `slow-read`, bytes per second."""

    percent: bool = False
    status: int = 0
    retry_after: str | None = None


def parse_faults(words: Sequence[str]) -> list[Fault]:
    """Parse the faults of API calls; ` x20` after a word repeats it.

    Raises:
        ConfigError: a word is unknown.
    """
    return [fault for word, times in _iter_words(words) for fault in [_parse_fault(word)] * times]


def _parse_fault(word: str) -> Fault:
    match = _WORD.fullmatch(word)
    if match is None or (match["html"] and match["status"] not in map(str, HTTPStatus)):
        raise ConfigError(f"Unknown fault {word!r}.", hint=_HELP)
    kind = _parse_kind(match)
    option = match["option"]
    if (match["commit"] and kind not in _COMMITTING_KINDS) or (
        option and kind is not _OPTION_KINDS[option]
    ):
        raise ConfigError(f"Unknown fault {word!r}.", hint=_HELP)
    return Fault(
        word=word,
        kind=kind,
        commit=bool(match["commit"]) or kind is FaultKind.TRUNCATE,
        seconds=float(match["seconds"] or 0),
        silent=option == "silent",
        always=option == "always",
        amount=int(match["after"] or match["rate"] or 0),
        percent=bool(match["percent"]),
        status=int(match["status"] or 0),
        retry_after=match["hint"],
    )


def _parse_kind(match: re.Match[str]) -> FaultKind:
    if named := match["plain"] or match["timed"]:
        return FaultKind(named)
    if match["after"]:
        return FaultKind.RESET_AFTER
    if match["rate"]:
        return FaultKind.SLOW_READ
    return FaultKind.PAGE if match["html"] else FaultKind.STATUS


class RunOutcome(StrEnum):
    """Planned outcomes of an indexing run."""

    OK = "ok"
    ERROR = "error"
    HANG = "hang"
    BLOCK = "block"
    VECTOR_LIMIT = "vector-limit"
    LOSE = "lose"
    DIE = "die"
    KILL = "kill"


@frozen
class RunFault:
    """The planned outcome of an indexing run; `text` is the message of an `error`."""

    word: str
    outcome: RunOutcome
    text: str = ""
    lose: int = 0
    """Queued tasks that a killed worker loses in addition to its own."""


def parse_run_faults(words: Sequence[str]) -> list[RunFault]:
    """Parse the faults of indexing runs; ` x20` after a word repeats it.

    Raises:
        ConfigError: a word is unknown.
    """
    return [
        fault for word, times in _iter_words(words) for fault in [_parse_run_fault(word)] * times
    ]


def _parse_run_fault(word: str) -> RunFault:
    name, _, text = word.partition(" ")
    if name == RunOutcome.KILL and re.fullmatch(r"\d{0,5}", text):
        return RunFault(word, RunOutcome.KILL, lose=int(text or 0))
    if name not in {*RunOutcome} - {RunOutcome.KILL} or bool(text.strip()) != (
        name == RunOutcome.ERROR
    ):
        raise ConfigError(
            f"Unknown indexing fault {word!r}.",
            hint="Use ok, 'error TEXT', vector-limit, hang, block, lose, die, kill or 'kill 3';"
            " append ' x20' for 20 runs.",
        )
    return RunFault(word, RunOutcome(name), text)


@frozen
class ModelFault:
    """The planned outcome of a model call; `text` is the provider's error, None for success."""

    word: str
    text: str | None = None


def parse_model_faults(words: Sequence[str]) -> list[ModelFault]:
    """Parse the faults of model calls; ` x20` after a word repeats it.

    Raises:
        ConfigError: a word is unknown.
    """
    return [
        fault for word, times in _iter_words(words) for fault in [_parse_model_fault(word)] * times
    ]


def _parse_model_fault(word: str) -> ModelFault:
    name, _, text = word.partition(" ")
    if word == RunOutcome.OK:
        return ModelFault(word)
    if name != RunOutcome.ERROR or not text.strip():
        raise ConfigError(
            f"Unknown model fault {word!r}.",
            hint="Use ok or 'error TEXT'; append ' x20' for 20 calls.",
        )
    return ModelFault(word, text)


def _iter_words(words: Sequence[str]) -> Iterator[tuple[str, int]]:
    if isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"Invalid faults {words!r}: expected a list of strings.", hint=_HELP)
    for word in words:
        match = _REPEATED_WORD.fullmatch(word)
        if match is None:
            raise ConfigError("Empty fault word.", hint=_HELP)
        yield match["word"], int(match["times"] or 1)
