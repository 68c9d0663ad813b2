"""Combine the metadata of a file from all sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from attrs import define, field, frozen

from dify_kb.errors import ConfigError, SourceError
from dify_kb.ingest.sources.file_content import FileContent, read_head
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.ingest.sources.items import Item
from dify_kb.resources.metadata_validation import (
    AssignableValue,
    MetadataWarning,
    check_field_name,
    split_type,
    validate_each,
    validate_metadata,
)

from .front_matter import HEAD_SIZE, FrontMatter, Header, parse_header
from .key_metadata import Auto, FileTimes, PathPattern
from .labels import HeaderState, Labels, metadata_fingerprint
from .metadata_files import Sidecar, SidecarEntry, SidecarReader, Table, TableRows

MetadataFunction = Callable[[Item], Mapping[str, object] | None]

MetadataSource = (
    Mapping[str, object]
    | MetadataFunction
    | PathPattern
    | Auto
    | FileTimes
    | FrontMatter
    | Sidecar
    | Table
)
"""Values by field name for every document, a function that returns those of an item, or one of the
sources of this package."""

LoadMetadata = MetadataSource | Sequence[MetadataSource] | None
"""One source of metadata, or several: later ones win. A name may end with a type, to which its
values are converted: `{"published:time": "2024-12-31"}`."""

_TYPES = (Mapping, PathPattern, Auto, FileTimes, FrontMatter, Sidecar, Table)


def list_sources(metadata: LoadMetadata) -> Sequence[MetadataSource]:
    """Return the sources of the `metadata` of a load.

    Raises:
        ConfigError: there are two `FrontMatter`.
        TypeError: one is not a source.
    """
    if metadata is None:
        return ()
    is_list = isinstance(metadata, Sequence) and not isinstance(metadata, str | bytes)
    sources = cast("Sequence[MetadataSource]", metadata if is_list else [metadata])
    for source in sources:
        is_function = callable(source) and not isinstance(source, type)
        if not (isinstance(source, _TYPES) or is_function):
            raise TypeError(
                "metadata must be a mapping, a function, a source such as FrontMatter(), or a list"
                f" of these, not {source!r}"
            )
    if sum(isinstance(source, FrontMatter) for source in sources) > 1:
        raise ConfigError("FrontMatter() occurs twice in metadata.", hint="Pass it once.")
    return tuple(sources)


@frozen(kw_only=True)
class ResolvedMetadata:
    """The metadata of a file after it was read: its values and labels."""

    values: Mapping[str, AssignableValue] = field(factory=dict)
    labels: Labels = field(factory=Labels)
    warnings: Sequence[MetadataWarning] = ()


_Part = Mapping[str, AssignableValue] | SidecarEntry | FrontMatter


@define
class FileMetadata:
    """The metadata of a file as far as it is known before the file is read.

    `fingerprint` is a hash of it.
    """

    _found: FoundFile
    _parts: Sequence[_Part]
    _warnings: Sequence[MetadataWarning]
    fingerprint: str
    front_matter: FrontMatter | None = None
    """The option, if the file may have a header."""

    _header: Header | None = None

    @property
    def is_pending(self) -> bool:
        """Whether something is read with the file."""
        return not all(isinstance(part, Mapping) for part in self._parts)

    @property
    def known_values(self) -> Mapping[str, AssignableValue]:
        """The values that are known without reading the file."""
        values = dict[str, AssignableValue]()
        for part in self._parts:
            values |= part if isinstance(part, Mapping) else {}
        return values

    def is_recorded(self, labels: str) -> bool:
        """Return whether an unchanged file with these labels needs no new metadata."""
        recorded = Labels.parse(labels)
        if self.front_matter is not None and recorded.header is HeaderState.UNREAD:
            return False
        return recorded.are_set and self.fingerprint in {"", recorded.values}

    def changes_content(self, labels: str) -> bool:
        """Return whether the front matter makes the content differ from that sent with `labels`.

        Blocking: reads the beginning of a file whose header was not looked for.
        """
        header = Labels.parse(labels).header
        if self.front_matter is None or self.front_matter.keep:
            return header is HeaderState.REMOVED
        if header is HeaderState.UNREAD:
            return self._read_header(None).length > 0
        return header is HeaderState.KEPT

    def resolve(self, content: FileContent | None = None) -> ResolvedMetadata:
        """Return the metadata, and in its labels how many bytes to remove. Blocking.

        Args:
            content: the content to send; None reads the beginning of the file.
        """
        values, warnings = dict[str, AssignableValue](), [*self._warnings]
        state, removed = HeaderState.UNREAD, 0
        for part in self._parts:
            raw: Mapping[str, object]
            if isinstance(part, Mapping):
                values |= part
                continue
            if isinstance(part, SidecarEntry):
                raw, more = part.read()
            else:
                header = self._read_header(content)
                raw, more = header.values, header.warnings
                state = HeaderState.NONE if header.is_read else HeaderState.UNREAD
                if header.length:
                    state = HeaderState.KEPT if part.keep else HeaderState.REMOVED
                    removed = 0 if part.keep else header.length
            checked, refused = validate_each(raw)
            values |= checked
            warnings += [*more, *refused]
        labels = Labels(self.fingerprint, state, removed)
        return ResolvedMetadata(values=values, labels=labels, warnings=warnings)

    def _read_header(self, content: FileContent | None) -> Header:
        if content is not None:
            return parse_header(content.read_head(HEAD_SIZE))
        if self._header is None:
            try:
                self._header = parse_header(read_head(self._found, HEAD_SIZE))
            except SourceError as error:
                warning = MetadataWarning(f"The front matter was not read: {error}", "unreadable")
                return Header(warnings=[warning], is_read=False)
        return self._header


@define
class MetadataCollector:
    """Collector of the metadata of files from the sources of a load."""

    _sources: Sequence[MetadataSource | TableRows] = ()
    _sidecars: SidecarReader = field(factory=SidecarReader)
    _constant: tuple[Mapping[str, AssignableValue], str] | None = field(default=None, init=False)
    """The values and the fingerprint of all files, if there are only mappings."""

    def __attrs_post_init__(self) -> None:
        if all(isinstance(source, Mapping) for source in self._sources):
            values = self.constant_values
            self._constant = (values, metadata_fingerprint(values))

    @classmethod
    def create(cls, sources: Sequence[MetadataSource]) -> MetadataCollector:
        """Check the sources, and read their tables. Blocking.

        Raises:
            ConfigError: a library is missing, a field has the name of a built-in one, a value of a
                mapping cannot be set, or a table cannot be read.
        """
        opened = [
            TableRows.from_file(source.path) if isinstance(source, Table) else source
            for source in sources
        ]
        for source in opened:
            if isinstance(source, FrontMatter):
                source.require_library()
            keys = source if isinstance(source, Mapping) else getattr(source, "keys", ())
            for key in keys:
                check_field_name(split_type(key)[0])
        collector = cls(opened)
        collector.constant_values  # noqa: B018 -- checks them
        return collector

    @property
    def constant_values(self) -> Mapping[str, AssignableValue]:
        """The values of mappings, which are the same for all files.

        Raises:
            ConfigError: one cannot be set.
        """
        values = dict[str, AssignableValue]()
        for source in self._sources:
            if isinstance(source, Mapping):
                validate_metadata({split_type(key)[0]: one for key, one in source.items()})
                checked, warnings = validate_each(source)
                if warnings:
                    raise ConfigError(f"Invalid metadata: {warnings[0].message}.")
                values |= checked
        return values

    def collect(self, found: FoundFile) -> FileMetadata:
        """Return the metadata of a file, without reading it. Blocking.

        Raises:
            SourceError: the sidecars of a source cannot be listed.
        """
        if self._constant is not None and not found.metadata:
            values, fingerprint = self._constant
            return FileMetadata(found, [values], (), fingerprint)
        parts, warnings = list[_Part](), list[MetadataWarning]()
        front_matter: FrontMatter | None = None
        for source in (*self._sources, found.metadata or {}):
            if isinstance(source, FrontMatter):
                if source.applies_to(found):
                    front_matter = source
                    parts.append(source)
                continue
            read: SidecarEntry | tuple[Mapping[str, object], Sequence[MetadataWarning]]
            if isinstance(source, Sidecar):
                read = self._sidecars.read(found)
            else:
                read = _read(source, found), ()
            if isinstance(read, SidecarEntry):
                parts.append(read)
                continue
            checked, refused = validate_each(read[0])
            warnings += [*read[1], *refused]
            parts.append(checked)
        return FileMetadata(found, parts, warnings, _fingerprint(parts), front_matter)

    def warnings(self, *, complete: bool) -> Sequence[str]:
        """Return sentences about the sources as a whole, after a scan that is `complete` or not."""
        return [
            warning
            for source in self._sources
            if isinstance(source, TableRows)
            for warning in source.warnings(complete=complete)
        ]


def _fingerprint(parts: Sequence[_Part]) -> str:
    """Return a hash of what is known without reading.

    A header after all other values has no influence, so that switching it on sets nothing on files
    without one.
    """
    known = [part for part in parts if part]
    while known and isinstance(known[-1], FrontMatter):
        known.pop()
    if all(isinstance(part, Mapping) for part in known):
        merged = dict[str, AssignableValue]()
        for part in known:
            merged |= part if isinstance(part, Mapping) else {}
        return metadata_fingerprint(merged)
    return metadata_fingerprint(
        [
            part
            if isinstance(part, Mapping)
            else ("sidecar", part.entry.key, part.entry.token)
            if isinstance(part, SidecarEntry)
            else "front matter"
            for part in known
        ]
    )


def _read(source: MetadataSource | TableRows, found: FoundFile) -> Mapping[str, object]:
    if isinstance(source, Mapping):
        return source
    if isinstance(source, PathPattern | Auto | FileTimes | TableRows):
        return source.read(found)
    if not callable(source):
        raise TypeError(f"{source!r} is not a source of metadata")
    values = source(_item(found))
    if values is not None and not isinstance(values, Mapping):
        raise TypeError(f"the metadata function returned {values!r}, not a mapping or None")
    return values or {}


def _item(found: FoundFile) -> Item:
    """Return the item that a metadata function gets; without the content of a remote file."""
    path = None if found.path is None else Path(found.path)
    data = found.data if found.source is None else b""
    return Item(found.key, path=path, bytes=data)


@define(eq=False)
class MetadataWarnings:
    """The warnings about metadata of all files, grouped by their kind."""

    _counts: dict[str, int] = field(factory=dict)
    _first: dict[str, tuple[str, str]] = field(factory=dict)
    """Message and key of the first file of each kind."""

    def add(self, key: str, warnings: Sequence[MetadataWarning]) -> None:
        """Add the warnings of a file."""
        for warning in warnings:
            separate = warning.kind in self._counts or len(self._counts) < MAX_KINDS
            kind = warning.kind if separate else ""
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._first.setdefault(kind, (warning.message, key))

    def warnings(self) -> Sequence[str]:
        """Return the warnings for the report."""
        return [
            f"{message} ({_count_files(self._counts[kind])}{key!r})."
            for kind, (message, key) in self._first.items()
        ]


MAX_KINDS = 20
"""Kinds of warnings that are counted separately; the rest are counted together."""


def _count_files(count: int) -> str:
    return "in " if count == 1 else f"in {count:,} files, such as "
