"""Metadata from files next to the documents, and from tables."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from unicodedata import normalize

from attrs import define, field, frozen

from dify_kb.argument_checks import check_constructor
from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.ingest.sources.file_content import read_stream
from dify_kb.ingest.sources.file_source import FileSource, SourceEntry
from dify_kb.ingest.sources.found_file import describe_os_error
from dify_kb.ingest.sources.scan import SIDECAR_SUFFIX
from dify_kb.resources.metadata_validation import MetadataWarning
from dify_kb.transport.upload_body import OPEN_FLAGS

if TYPE_CHECKING:
    from dify_kb.ingest.sources.found_file import FoundFile

MAX_SIDECAR = 1024 * 1024
"""Bytes of the largest sidecar that is read. Amazon Bedrock allows 10 KB."""

_TYPED_VALUES = {
    "STRING": "stringValue",
    "NUMBER": "numberValue",
    "BOOLEAN": "booleanValue",
    "STRING_LIST": "stringListValue",
}


@frozen
class Sidecar:
    """The file `<name>.metadata.json` next to a file, in the format of Amazon Bedrock.

    `{"metadataAttributes": {"team": "infra", "year": 2024}}`; values may also have the form
    `{"value": {"type": "NUMBER", "numberValue": 2024}}`. Lists are joined by `, `. Sidecars are not
    loaded as documents. One that cannot be read sets nothing, with a warning. In buckets, sidecars
    cost one more listing, and a download where one is new or changed.
    """


def parse_sidecar(content: bytes) -> tuple[Mapping[str, object], Sequence[MetadataWarning]]:
    """Return the values of a sidecar, and warnings."""
    if len(content) > MAX_SIDECAR:
        return {}, [_sidecar_warning(f"larger than {MAX_SIDECAR // 1024} KiB")]
    try:
        read: Any = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return {}, [_sidecar_warning("not in UTF-8")]
    except (ValueError, RecursionError):
        return {}, [_sidecar_warning("not valid JSON")]
    attributes = read.get("metadataAttributes") if isinstance(read, dict) else None
    if not isinstance(attributes, dict):
        return {}, [_sidecar_warning('without an object "metadataAttributes"')]
    return {name: _read_attribute(value) for name, value in attributes.items()}, []


def _read_attribute(attribute: object) -> object:
    if isinstance(attribute, dict) and isinstance(typed := attribute.get("value"), dict):
        attribute = typed.get(_TYPED_VALUES.get(str(typed.get("type")), ""))
    if isinstance(attribute, list) and attribute:
        scalars = [one for one in attribute if isinstance(one, str | int | float)]
        return ", ".join(map(str, scalars)) if len(scalars) == len(attribute) else attribute
    return attribute


def _sidecar_warning(problem: str) -> MetadataWarning:
    return MetadataWarning(f"The sidecar was ignored: {problem}", problem)


@frozen
class SidecarEntry:
    """The sidecar of an entry of a source, not read yet."""

    source: FileSource = field(repr=False)
    entry: SourceEntry

    def read(self) -> tuple[Mapping[str, object], Sequence[MetadataWarning]]:
        """Return its values, and warnings. Blocking."""
        try:
            opened = self.source.open(self.entry)
            try:
                content = read_stream(opened.stream, MAX_SIDECAR + 1)
            finally:
                opened.stream.close()
        except (KnowledgeError, OSError, EOFError) as error:
            return {}, [_sidecar_warning(f"unreadable: {error}")]
        return parse_sidecar(content)


@define
class SidecarReader:
    """Reader of the sidecars of files."""

    _entries: dict[FileSource, Mapping[str, SourceEntry]] = field(factory=dict)
    """The sidecars of each source by their keys."""

    def read(
        self, found: FoundFile
    ) -> SidecarEntry | tuple[Mapping[str, object], Sequence[MetadataWarning]]:
        """Return the values of the sidecar of a file, and warnings. Blocking.

        Returns an entry, not read, if its token detects changes.

        Raises:
            SourceError: the source cannot be listed.
        """
        if found.source is not None and found.entry is not None:
            return self._find_entry(found.source, f"{found.entry.key}{SIDECAR_SUFFIX}")
        if found.path is None:
            return {}, []
        try:
            content = _read_beginning(f"{os.fspath(found.path)}{SIDECAR_SUFFIX}")
        except (FileNotFoundError, NotADirectoryError):
            return {}, []
        except (OSError, ValueError) as error:
            return {}, [_sidecar_warning(f"unreadable: {describe_os_error(error)}")]
        return parse_sidecar(content)

    def _find_entry(
        self, source: FileSource, key: str
    ) -> SidecarEntry | tuple[Mapping[str, object], Sequence[MetadataWarning]]:
        entries = self._entries.get(source)
        if entries is None:
            entries = {one.key: one for one in source.scan() if one.key.endswith(SIDECAR_SUFFIX)}
            self._entries[source] = entries
        if (entry := entries.get(key)) is None:
            return {}, []
        if why := entry.unreadable or entry.refused:
            return {}, [_sidecar_warning(f"unreadable: {why}")]
        sidecar = SidecarEntry(source, entry)
        return sidecar.read() if entry.token is None else sidecar


def _read_beginning(path: str) -> bytes:
    """Return the first `MAX_SIDECAR` + 1 bytes of a regular file.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, OPEN_FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "not a regular file")
        return file.read(MAX_SIDECAR + 1)


@check_constructor
@frozen
class Table:
    """A table with one row per file: CSV with a header, or JSON Lines (`.jsonl`).

    The column `key`, else the first one, has the keys of the files, as `report` and `--dry-run`
    show them. Each other column is a field, whose name may state its type: `year:number`. An empty
    cell is not set, with a warning. CSV is separated by commas, semicolons or tabs. The table is
    read into memory before anything is sent.

    Raises:
        ConfigError: (by the load) the table cannot be read, or has a malformed row.
    """

    path: str | os.PathLike[str]


@define
class TableRows:
    """The rows of a table by key, and which of them were used."""

    path: str
    keys: Collection[str] = ()
    """The names of the fields, with their types."""

    _rows: dict[str, Mapping[str, object]] = field(factory=dict)
    _duplicates: list[str] = field(factory=list)
    _used: set[str] = field(factory=set)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> TableRows:
        """Read a table. Blocking.

        Raises:
            ConfigError: it cannot be read, or is malformed.
        """
        table = cls(os.fspath(path))
        fields = dict[str, None]()
        for key, row in table._parse(_read_text(Path(path))):
            if key in table._rows:
                table._duplicates.append(key)
            table._rows[key] = row
            fields.update(dict.fromkeys(row))
        table.keys = tuple(fields)
        return table

    def read(self, found: FoundFile) -> Mapping[str, object]:
        """Return the values for a file."""
        key = normalize("NFC", found.key)
        row = self._rows.get(key)
        if row is None:
            return {}
        self._used.add(key)
        return row

    def warnings(self, *, complete: bool) -> Sequence[str]:
        """Return sentences about repeated keys and, after a complete scan, unknown ones."""
        warnings = list[str]()
        if self._duplicates:
            count = len(self._duplicates)
            rows = "1 row repeats" if count == 1 else f"{count:,} rows repeat"
            replaces = "replaces it" if count == 1 else "replace it"
            warnings.append(
                f"Table {self.path}: {rows} the key of an earlier row and {replaces}, such as"
                f" {self._duplicates[0]!r}."
            )
        unknown = [key for key in self._rows if key not in self._used] if complete else []
        if unknown:
            warnings.append(
                f"Table {self.path}: no file has the key of {len(unknown):,} of"
                f" {len(self._rows):,} rows, such as {unknown[0]!r}."
            )
        return warnings

    def _parse(self, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
        is_json = self.path.lower().endswith((".jsonl", ".ndjson"))
        rows = self._parse_json(text) if is_json else self._parse_csv(text)
        for number, row in rows:
            key = row.pop("key", None) if "key" in row else row.pop(next(iter(row)))
            if not isinstance(key, str) or not key:
                raise self._error(number, "has no key")
            yield normalize("NFC", key.removeprefix("./")), row

    def _parse_csv(self, text: str) -> Iterator[tuple[int, dict[str, object]]]:
        header = text.partition("\n")[0]
        delimiter = max(",;\t", key=lambda one: (header.count(one), one == ","))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            if not any(names):
                raise self._error(1, "has no names of columns")
            if "" in names or len(set(names)) < len(names):
                raise self._error(1, "has an empty or repeated name of a column")
            for row in reader:
                if len(row) > len(names):
                    raise self._error(reader.line_num, f"has {len(row)} cells, not {len(names)}")
                cells = [cell.strip() or None for cell in row]
                if any(cells):
                    cells += [None] * (len(names) - len(cells))
                    yield reader.line_num, dict(zip(names, cells, strict=True))
        except csv.Error as error:
            raise self._error(reader.line_num, f"is invalid: {error}") from error

    def _parse_json(self, text: str) -> Iterator[tuple[int, dict[str, object]]]:
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._error(number, "is not valid JSON") from error
            if not isinstance(row, dict) or not row:
                raise self._error(number, "is not a JSON object")
            yield number, cast("dict[str, object]", row)

    def _error(self, line: int, problem: str) -> ConfigError:
        return ConfigError(
            f"Invalid table {self.path}: line {line} {problem}.",
            hint="Pass CSV with a header and a column `key`, or JSON Lines (.jsonl).",
        )


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Cannot read the table {path}: {describe_os_error(error)}.", hint="Check the path."
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"The table {path} is not in UTF-8: byte 0x{content[error.start]:02X} in line {line}.",
            hint=f"Convert it: iconv -f WINDOWS-1252 -t UTF-8 {path} > utf8.csv",
        ) from error
