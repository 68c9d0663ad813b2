"""Metadata from the key and the times of a file."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar
from unicodedata import normalize

from attrs import Factory, field, frozen

from dify_kb.argument_checks import check_constructor
from dify_kb.errors import ConfigError
from dify_kb.models import MetadataType
from dify_kb.resources.metadata_validation import check_field_name, split_type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dify_kb.ingest.sources.found_file import FoundFile

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<field>[^{}]*)\}|(?P<folders>\*\*/)|\*\*|\*|\?|[{}]|[^{}*?]+")
_GLOBS = {"*": "[^/]*", "**": ".*", "?": "[^/]", "{{": r"\{", "}}": r"\}"}
_VALUES = {
    MetadataType.NUMBER: r"-?\d+(?:\.\d+)?",
    MetadataType.TIME: r"\d{4}-?\d\d-?\d\d(?:T[\d:.+-]+Z?)?",
}


@check_constructor
@frozen
class PathPattern:
    """A pattern whose placeholders take values from the key of a file.

    `PathPattern("{team}/{year:number}/**")` sets `team` and `year` of `infra/2024/a.md`. A
    placeholder matches a part of one path segment, and has the type `string`, or `number` or `time`
    as stated. `*` and `?` do not match `/`, `**` does. A pattern without `/` is matched against the
    name of the file, others against the whole key. Files that do not match get no values. `{{` and
    `}}` stand for braces.

    Raises:
        ConfigError: the pattern has no placeholder, an invalid one, or two with the same name.
    """

    pattern: str
    _compiled: re.Pattern[str] = field(
        default=Factory(lambda self: self._compile(), takes_self=True),
        init=False,
        repr=False,
        eq=False,
    )

    def _compile(self) -> re.Pattern[str]:
        compiled = re.compile("".join(self._translate()), re.DOTALL)
        if not compiled.groups:
            raise self._error("it has no placeholder")
        return compiled

    @property
    def keys(self) -> Collection[str]:
        """The names of the fields, with their types."""
        found = (match["field"] for match in _TOKEN.finditer(self.pattern))
        return [key for key in found if key is not None]

    def read(self, found: FoundFile) -> Mapping[str, object]:
        """Return the values for a file."""
        key = normalize("NFC", found.key)
        if "/" not in self.pattern:
            key = key.rpartition("/")[2]
        match = self._compiled.fullmatch(key)
        return {} if match is None else dict(zip(self.keys, match.groups(), strict=True))

    def _translate(self) -> Iterator[str]:
        """Yield the parts of the regular expression."""
        names = set[str]()
        for match in _TOKEN.finditer(normalize("NFC", self.pattern)):
            if match["field"] is not None:
                name, type_ = split_type(match["field"])
                if name in names:
                    raise self._error(f"it has two placeholders {name!r}")
                if ":" in name:
                    raise self._error(f"{match[0]} has an unknown type")
                check_field_name(name)
                names.add(name)
                yield f"({_VALUES.get(type_ or MetadataType.STRING, '[^/]+?')})"
            elif match["folders"]:
                yield "(?:.*/)?"
            elif match[0] in {"{", "}"}:
                raise self._error("a brace is not closed")
            else:
                yield _GLOBS.get(match[0]) or re.escape(match[0])

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(
            f"Invalid path pattern {self.pattern!r}: {problem}.",
            hint="Pass a pattern such as {team}/{year:number}/** (types: string, number, time).",
        )


@frozen
class Auto:
    """The parts of a file's key: `path`, `folder`, `stem` and `extension`.

    A file in no folder has no `folder`, a file without extension no `extension`.
    """

    keys: ClassVar[Collection[str]] = ("path", "folder", "stem", "extension")

    def read(self, found: FoundFile) -> Mapping[str, object]:
        """Return the values for a file."""
        path = PurePosixPath(found.key)
        folder, extension = path.parent.as_posix(), path.suffix.removeprefix(".").lower()
        values = {"path": found.key, "stem": path.stem}
        if folder not in {".", "/"}:
            values["folder"] = folder
        if extension:
            values["extension"] = extension
        return values


@check_constructor
@frozen
class FileTimes:
    """The modification time of a file, as the time field `modified`.

    Files of git repositories and items without a path have none.
    """

    field: str = "modified"

    @property
    def keys(self) -> Collection[str]:
        """The name of the field."""
        return (self.field,)

    def read(self, found: FoundFile) -> Mapping[str, object]:
        """Return the value for a file, in whole seconds."""
        if found.mtime_ns is None:
            return {}
        try:
            return {self.field: datetime.fromtimestamp(found.mtime_ns // 10**9, UTC)}
        except (ValueError, OverflowError, OSError):  # a file from a far future
            return {}
