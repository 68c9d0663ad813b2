"""Metadata from the YAML header of markdown files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from dify_kb.argument_checks import check_constructor
from dify_kb.errors import ConfigError
from dify_kb.ingest.sources.document_names import file_extension
from dify_kb.resources.metadata_validation import MetadataWarning

if TYPE_CHECKING:
    from dify_kb.ingest.sources.found_file import FoundFile

MAX_HEADER = 64 * 1024
"""Bytes of the longest header that is read."""

HEAD_SIZE = MAX_HEADER + 8
"""Bytes of a file that `parse_header` needs."""

_EXTENSIONS = frozenset({"md", "mdx", "markdown"})
_BEGIN = re.compile(rb"(?:\xef\xbb\xbf)?---[ \t]*(?:\r\n|\n|\r)")
_END = re.compile(rb"(?<=[\r\n])(?:---|\.\.\.)[ \t]*(?:\r\n|\n|\r|\Z)")

_TAG = "tag:yaml.org,2002:"
_TRUTH = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
# Longer numbers, and those with leading zeros, are ids: as a text they keep their digits.
_INTEGER = re.compile(r"[-+]?(?:0|[1-9]\d{0,14})", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:0|[1-9]\d{0,14})?(?:\.\d*)(?:[eE][-+]?\d{1,2})?", re.ASCII)
_TIME = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:(?:[Tt]|[ \t]+)(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d*)?)?"
    r"(?:[ \t]*(?:Z|([-+])(\d{1,2})(?::?(\d\d))?))?)?",
    re.ASCII,
)


@check_constructor
@frozen
class FrontMatter:
    """The YAML header of markdown files (`.md`, `.mdx`, `.markdown`), between two lines `---`.

    Documents are sent without it, unless `keep`. Lists are joined by `, `; numbers stay numbers;
    dates become times (UTC without an offset). A nested value or a boolean is not set, with a
    warning. A header that cannot be read is left in the document, with a warning. Requires pyyaml
    (extra `metadata`).

    The header is read when a file is sent, so that unchanged files are not read. Switching it on
    reads each markdown file once, and sends those with a header again; switching it off sends these
    again.
    """

    keep: bool = False

    def applies_to(self, found: FoundFile) -> bool:
        """Return whether a file may have a header."""
        return file_extension(found.key) in _EXTENSIONS

    def require_library(self) -> None:
        """Check that pyyaml is installed.

        Raises:
            ConfigError: it is not.
        """
        try:
            import yaml  # noqa: F401
        except ModuleNotFoundError:
            raise ConfigError(
                "Reading front matter requires the package pyyaml.",
                hint="pip install 'dify-kb[metadata]'",
            ) from None


@frozen
class Header:
    """The header of a document: its values, and its length in bytes; 0 if there is none."""

    values: Mapping[str, object] = MappingProxyType({})
    length: int = 0
    warnings: Sequence[MetadataWarning] = ()
    is_read: bool = True


class _InvalidHeaderError(Exception):
    """Raised for a header that cannot be read as fields; the message is the reason."""


def parse_header(head: bytes) -> Header:
    """Return the header of a document, of which `head` has the first `HEAD_SIZE` bytes."""
    begin = _BEGIN.match(head)
    if begin is None:
        return Header()
    try:
        end = _END.search(head, begin.end())
        if end is None or end.end() > MAX_HEADER:
            bound = f" in its first {MAX_HEADER // 1024} KiB" if len(head) > MAX_HEADER else ""
            raise _InvalidHeaderError(f"it has no end (---){bound}")  # noqa: TRY301 -- one place
        values, warnings = _parse_fields(head[begin.end() : end.start()])
        if len(head) < HEAD_SIZE and not head[end.end() :].strip():
            message = "The front matter was left in a document without text"
            warning = MetadataWarning(message, message)
            return Header(values, 0, [*warnings, warning])
    except _InvalidHeaderError as error:
        message = f"The front matter was left in the document: {error}"
        kind = re.sub(r" \(line \d+\)$", "", str(error))
        return Header(warnings=[MetadataWarning(message, kind)])
    return Header(values, end.end(), warnings)


def _parse_fields(header: bytes) -> tuple[Mapping[str, object], Sequence[MetadataWarning]]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Events instead of values: aliases are not expanded, and nesting does not recurse.
        events = list(yaml.parse(header.decode(), Loader=loader))
    except UnicodeDecodeError:
        raise _InvalidHeaderError("it is not in UTF-8") from None
    except yaml.YAMLError as error:
        raise _InvalidHeaderError(_describe(error)) from error
    parser = _FieldParser(iter(events))
    return parser.parse(), parser.warnings


def _describe(error: Exception) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "invalid YAML"
    mark = getattr(error, "problem_mark", None)
    return f"{problem} (line {mark.line + 2})" if mark else str(problem)


@define
class _FieldParser:
    """Parser of the fields of a header, from YAML events."""

    _events: Iterator[Any]
    warnings: list[MetadataWarning] = field(factory=list)
    _anchors: dict[str, Any] = field(factory=dict)
    """The scalars with an anchor."""

    def parse(self) -> Mapping[str, object]:
        """Return the values by name.

        Raises:
            _InvalidHeaderError: the header is not a mapping.
        """
        import yaml

        for event in self._events:
            if isinstance(event, yaml.MappingStartEvent):
                break
            if isinstance(event, yaml.NodeEvent):
                if isinstance(event, yaml.ScalarEvent) and event.value in _NULL:
                    return {}
                raise _InvalidHeaderError("it is not a mapping of names to values")
        values = dict[str, object]()
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            self._parse_field(event, values)
        if any(isinstance(event, yaml.DocumentStartEvent) for event in self._events):
            self._warn("", "more than one YAML document: only the first one was read")
        return values

    def _parse_field(self, event: Any, values: dict[str, object]) -> None:
        key = self._read_scalar(event)
        if key is None:
            self._skip(event)
            self._skip(next(self._events))
            self._warn("", "a name is not a text: the field was not set")
            return
        name = key.value
        if name in values:
            self._warn(name, "it occurs more than once: the last value was set")
        event = next(self._events)
        try:
            values[name] = self._parse_value(event)
        except ValueError as error:
            values.pop(name, None)
            self._warn(name, f"{error}: the field was not set")

    def _parse_value(self, event: Any) -> object:
        """Return the value of a field.

        Raises:
            ValueError: it cannot be set; the message is the reason.
        """
        import yaml

        if isinstance(event, yaml.SequenceStartEvent):
            return self._join_list()
        scalar = self._read_scalar(event)
        if scalar is not None:
            return _convert_scalar(scalar)
        self._skip(event)
        alias = isinstance(event, yaml.AliasEvent)
        raise ValueError("an alias of something else than a text" if alias else "a nested value")

    def _join_list(self) -> str:
        import yaml

        texts, nested = list[str](), False
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            scalar = self._read_scalar(event)
            if scalar is not None:
                texts += [scalar.value] if scalar.value else []
            else:
                nested = True
                self._skip(event)
        if nested:
            raise ValueError("a nested value")
        if not texts:
            raise ValueError("an empty list")
        return ", ".join(texts)

    def _read_scalar(self, event: Any) -> Any:
        """Return the event of a scalar, or of that which an alias names; None for others."""
        import yaml

        if isinstance(event, yaml.ScalarEvent):
            if event.anchor:
                self._anchors[event.anchor] = event
            return event
        return self._anchors.get(event.anchor or "") if isinstance(event, yaml.AliasEvent) else None

    def _skip(self, event: Any) -> None:
        """Skip the rest of a list or mapping that begins with an event."""
        import yaml

        depth = int(isinstance(event, yaml.CollectionStartEvent))
        while depth:
            event = next(self._events)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)

    def _warn(self, name: str, problem: str) -> None:
        message = f"Front matter{f' of field {name!r}' if name else ''}: {problem}"
        self.warnings.append(MetadataWarning(message, f"{name}: {problem}"))


def _convert_scalar(event: Any) -> object:
    """Return the value of a scalar: a text, a number, a time, a truth value or None.

    Raises:
        ValueError: the tag is unknown, or a date does not exist.
    """
    text: str = event.value
    tag = (event.tag or "").removeprefix(_TAG)
    if tag == "str" or (not tag and not event.implicit[0]) or tag == "!":
        return text
    if tag not in {"", "int", "float", "bool", "null", "timestamp"}:
        raise ValueError(f"the unknown tag {tag}")
    if text in _NULL or text in _TRUTH:
        return None if text in _NULL else text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and any(map(str.isdigit, text)):
        return float(text)
    time = _TIME.fullmatch(text)
    return _make_time(time) if time else text


def _make_time(time: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second, sign, hours, minutes = time.groups(default="0")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    try:
        zone = timezone(-offset if sign == "-" else offset) if sign != "0" else UTC
        return datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=zone
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{time[0]} is not a date") from None
