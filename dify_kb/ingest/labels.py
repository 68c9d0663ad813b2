"""Values of documents by the names of their fields, many documents at a time."""

from __future__ import annotations

import math
import re
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import anyio
from attrs import define, field

from dify_kb.errors import (
    BadRequestError,
    ConfigError,
    NotFoundError,
    OutcomeUnknownError,
    TooLargeError,
)
from dify_kb.models import (
    Dataset,
    Document,
    DocumentDetail,
    DocumentMetadata,
    MetadataField,
    MetadataScalar,
    MetadataType,
    MetadataValue,
)
from dify_kb.resources import Documents, Metadata
from dify_kb.resources.metadata import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

Value = str | int | float | datetime
"""What a field of a document can be set to; a `datetime` is stored as seconds since the epoch."""

AT_ONCE = 50
"""Documents of one request. The server writes them one after the other, each in a transaction of
its own (recording 703), so that more would only make a lost answer dearer."""

BUILT_IN = frozenset({"document_name", "uploader", "upload_date", "last_update_date", "source"})
"""Fields that the server fills in by itself (recording 730)."""

_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def checked(metadata: Mapping[str, object]) -> dict[str, Value]:
    """Let names and values through that the server keeps as they are.

    Raises:
        ConfigError: a name that is no text of 1 to 255 characters, or a built-in field's; a value
            that is neither text, number nor `datetime` with a time zone. True is refused because
            the server makes 1 of it (recording 692), None because it has no type and the server
            would keep the field on the document all the same (recording 688).
    """
    return {_name(name): _value(name, value) for name, value in metadata.items()}


@define
class Labels:
    """Sets metadata of documents and keeps what they have under other names.

    Fields that the base does not have are made when they are first needed, with the type of that
    value: text a string, numbers a number, a `datetime` a time. Costs one list of the fields for
    a run, one request for each new field, and one per 50 documents. Servers before 1.11 can only
    replace all values of a document, so there each document that may have some is read first: one
    request each, on 1.4.3 one per 100 documents of the base, once for a run. So it is, too, where
    the dataset is only an id, which does not tell how old the server is.

    Up to 1.12 the server passes over a document that is gone without a word (recording 702): where
    it was not read first, it counts as set. Values that somebody else sets between the read and
    the write are lost; one document must not be in two calls at a time.
    """

    _metadata: Metadata
    _documents: Documents
    _dataset: Dataset | str
    _fields: dict[str, MetadataField] | None = field(default=None, init=False)
    _listed: dict[str, dict[str, MetadataValue]] | None = field(default=None, init=False)
    _lock: anyio.Lock = field(factory=anyio.Lock, init=False)

    async def assign(
        self,
        wanted: Mapping[str, Mapping[str, object]],
        *,
        fresh: AbstractSet[str] = frozenset(),
    ) -> dict[str, str | None]:
        """Set values of documents, and tell for each why it was not done; None where it was.

        A document gets all of its values or none. A batch that is refused is sent again in
        halves until the refusal is some document's own: about 12 requests more for one of 50,
        two per document where the server refuses all. It is safe to repeat.

        Args:
            wanted: names and values by the documents' ids.
            fresh: ids of documents that have no values yet, and need not be read.

        Raises:
            KnowledgeError: something that concerns every document: no answer, a crash, the key,
                the plan, a base that is gone. What was set before stays set.
        """
        reasons: dict[str, str | None] = dict.fromkeys(wanted)
        labelled = [(key, metadata) for key, metadata in wanted.items() if metadata]
        if labelled:
            async with self._lock:
                await self._known()
        for start in range(0, len(labelled), AT_ONCE):
            reasons |= await self._batch(labelled[start : start + AT_ONCE], fresh)
        return reasons

    async def _batch(
        self, wanted: Iterable[tuple[str, Mapping[str, object]]], fresh: AbstractSet[str]
    ) -> dict[str, str]:
        """Set the values of a batch, and give the reasons of those that were refused."""
        refused: dict[str, str] = {}
        ready: list[DocumentMetadata] = []
        for document_id, metadata in wanted:
            try:
                new = [await self._new(*item) for item in checked(metadata).items()]
                kept = {} if document_id in fresh else await self._kept(document_id)
            except (ConfigError, BadRequestError, NotFoundError) as error:
                refused[document_id] = str(error)
                continue
            values = list((kept | _by_name(new)).values())
            ready.append(DocumentMetadata(document_id=document_id, metadata_list=values))
        return refused | await self._send(ready)

    async def _send(self, batch: Sequence[DocumentMetadata]) -> dict[str, str]:
        if not batch:
            return {}
        try:
            await self._metadata.assign(self._dataset, batch, partial_update=True)
        except (ConfigError, BadRequestError, TooLargeError) as error:
            if len(batch) == 1:
                return {batch[0].document_id: str(error)}
            middle = len(batch) // 2
            return await self._send(batch[:middle]) | await self._send(batch[middle:])
        if self._listed is not None:
            self._listed |= {row.document_id: _by_name(row.metadata_list) for row in batch}
        return {}

    async def _new(self, name: str, value: Value) -> MetadataValue:
        async with self._lock:
            fields = await self._known()
            if name not in fields:
                fields = {**fields, name: await self._made(name, _type(value))}
                self._fields = fields
        return fields[name].value(value)

    async def _known(self) -> dict[str, MetadataField]:
        if self._fields is None:
            answer = await self._metadata.list(self._dataset)
            self._fields = {known.name: known for known in answer.doc_metadata}
        return self._fields

    async def _made(self, name: str, kind: MetadataType) -> MetadataField:
        try:
            return await self._metadata.create(self._dataset, name, type=kind)
        except (BadRequestError, OutcomeUnknownError):
            # Somebody made it meanwhile, or we did and the answer was lost.
            self._fields = None
            fields = await self._known()
            if name not in fields:
                raise
            return fields[name]

    async def _kept(self, document_id: str) -> dict[str, MetadataValue]:
        """Give the values that the server would drop."""
        if isinstance(self._dataset, Dataset) and self._dataset.enable_api is not None:
            # Told since 1.11, as partial_update is heeded since (recordings 090, 686).
            return {}
        if self._listed is None:
            try:
                detail = await self._documents.get(self._dataset, document_id, metadata="only")
            except (BadRequestError, NotFoundError) as error:
                if error.status != HTTPStatus.METHOD_NOT_ALLOWED:
                    raise
            else:
                return _own(detail)
        listed = await self._all()
        if document_id not in listed:
            raise ConfigError(f"The base has no document {document_id}.")
        return listed[document_id]

    async def _all(self) -> dict[str, dict[str, MetadataValue]]:
        """Read the values of all documents, on 1.4.3, which cannot tell of a single one."""
        async with self._lock:
            if self._listed is None:
                rows = self._documents.iter(self._dataset)
                self._listed = {row.id: _own(row) async for row in rows}
            return self._listed


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise ConfigError(f"The name of a metadata field is {name!r}.", hint="Pass a text.")
    if not 1 <= len(name) <= MAX_NAME:
        raise ConfigError(
            f"The name of a metadata field has {len(name)} characters: {name[:20]!r}.",
            hint=f"The server takes 1 to {MAX_NAME}.",
        )
    if name in BUILT_IN:
        raise ConfigError(
            f"{name!r} is a built-in metadata field.",
            hint="The server fills it in by itself; choose another name.",
        )
    return _text(name, "The name of a metadata field")


def _value(name: object, value: object) -> Value:
    what = f"The metadata value of {name!r}"
    match value:
        case None | bool():
            pass
        case str():
            return _text(value, what)
        case datetime() if value.tzinfo is None:
            raise ConfigError(
                f"{what} is {value!r}, a time of no time zone.",
                hint="Pass an aware datetime, such as datetime.now(UTC).",
            )
        case int() | datetime():
            return value
        case float() if math.isfinite(value):
            return value
        case _:
            pass
    raise ConfigError(
        f"{what} is {value!r}.",
        hint="Pass a text, a finite number or a datetime; leave out what a document does not have.",
    )


def _text(text: str, what: str) -> str:
    """Let a text through that PostgreSQL can hold: where it cannot, servers up to 1.12 say
    nothing.
    """
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(
            f"{what} holds a NUL or half of a surrogate pair: {text[:40]!r}.",
            hint="Leave those characters out, or read the text with its right encoding.",
        )
    return text


def _type(value: Value) -> MetadataType:
    match value:
        case str():
            return MetadataType.STRING
        case datetime():
            return MetadataType.TIME
        case _:
            return MetadataType.NUMBER


def _by_name(values: Iterable[MetadataValue]) -> dict[str, MetadataValue]:
    return {value.name: value for value in values}


def _own(document: Document | DocumentDetail) -> dict[str, MetadataValue]:
    """Take a document's values but those that the server fills in.

    Lists tell each as a text (recording 712), so there the type of its field decides.
    """
    read = _read if isinstance(document, Document) else _as_is
    return _by_name(
        MetadataValue(id=str(entry["id"]), name=str(entry["name"]), value=read(entry))
        for entry in document.doc_metadata or ()
        if entry["id"] != "built-in"
    )


def _as_is(entry: Mapping[str, object]) -> MetadataScalar:
    return cast("MetadataScalar", entry["value"])


def _read(entry: Mapping[str, object]) -> MetadataScalar:
    text = _as_is(entry)
    if entry["type"] == MetadataType.STRING or not isinstance(text, str):
        return text
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    return float(text) if number[1] or number[2] else int(text)
