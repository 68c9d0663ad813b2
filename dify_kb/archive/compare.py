"""Compare two archives, document by document and chunk by chunk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import asdict, field, frozen

from dify_kb.errors import ConfigError
from dify_kb.models import DocForm, ProcessRule
from dify_kb.wire import codec

from .archived_document import compute_digest
from .read_archive import ArchiveReader

if TYPE_CHECKING:
    import os

    from .archived_document import ArchivedChunk, ArchivedDocument

MAX_DIFFERENCES: Final = 1000
"""Differences that a report lists."""

BATCH_SIZE: Final = 500
"""Documents that are compared at a time."""

_Key = tuple[str, int]
"""A name, and the number of earlier documents with it."""


@frozen(kw_only=True)
class DatasetDifference:
    """A difference between two knowledge bases, `a` and `b`.

    `kind` is `only_in_a`, `only_in_b`, `chunks`, `child_chunks`, `keywords`, `disabled_chunks`,
    `metadata`, `state`, `language`, `form`, `fields`, `tags` or `settings`. `document` is None for
    a difference of the dataset.
    """

    kind: str
    document: str | None
    detail: str = ""


@frozen(kw_only=True)
class CompareReport:
    """The result of a comparison. Truthy if nothing differs.

    `counts` are the numbers of differences by kind; `differences` lists 1,000 at most.
    """

    a: str
    b: str
    documents_a: int = 0
    documents_b: int = 0
    counts: Mapping[str, int] = field(factory=dict)
    differences: Sequence[DatasetDifference] = ()

    def __bool__(self) -> bool:
        return not self.counts

    @property
    def exit_code(self) -> int:
        """The exit code of the command line: 1 if something differs."""
        return 0 if self else 1

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the report as JSON values."""
        return {**asdict(self), "exit_code": self.exit_code}


def compare_archives(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    names: tuple[str, str] | None = None,
    *,
    settings: bool = True,
) -> CompareReport:
    """Compare two archives. Blocking; reads each archive twice.

    Documents are compared by name, those with equal names in their order. Not compared are ids,
    order, dates, files, and the chunking rules of documents, which an import may have to change.
    Keywords count only in economy datasets. The chunks of a disabled or archived document are all
    disabled.

    Raises:
        ArchiveError: an archive is damaged.
    """
    with ArchiveReader.open(a) as first, ArchiveReader.open(b) as second:
        counts, listed = Counter[str](), list[DatasetDifference]()
        for difference in _iter_differences(first, second, settings=settings):
            counts[difference.kind] += 1
            if len(listed) < MAX_DIFFERENCES:
                listed.append(difference)
        return CompareReport(
            a=names[0] if names else str(a),
            b=names[1] if names else str(b),
            documents_a=first.manifest.documents,
            documents_b=second.manifest.documents,
            counts=dict(sorted(counts.items())),
            differences=listed,
        )


def _iter_differences(
    a: ArchiveReader, b: ArchiveReader, *, settings: bool
) -> Iterator[DatasetDifference]:
    if settings:
        yield from _compare_settings(a, b)
    first, second = _index(a), _index(b)
    pairs: list[tuple[_Key, _Key]] = []
    for name in sorted({*first, *second}):
        ones, others = _list_unmatched(first.get(name, ()), second.get(name, ()))
        pairs += [((name, one), (name, other)) for one, other in zip(ones, others, strict=False)]
        for number in ones[len(others) :]:
            yield DatasetDifference(kind="only_in_a", document=name, detail=_ordinal(number))
        for number in others[len(ones) :]:
            yield DatasetDifference(kind="only_in_b", document=name, detail=_ordinal(number))
    keywords = a.manifest.dataset.technique == b.manifest.dataset.technique == "economy"
    # Some documents at a time, as the memory could not hold all of two large archives.
    for start in range(0, len(pairs), BATCH_SIZE):
        batch = dict(pairs[start : start + BATCH_SIZE])
        wanted = {*batch.values()}
        documents = {key: document for key, document in _iter_keyed(b) if key in wanted}
        for key, document in _iter_keyed(a):
            if key in batch:
                yield from _compare_documents(document, documents[batch[key]], keywords=keywords)


def _list_unmatched(
    ones: Sequence[bytes], others: Sequence[bytes]
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the numbers of documents of one name that have no equal on the other side."""
    equal = Counter(ones) & Counter(others)
    return _list_beyond(ones, Counter(equal)), _list_beyond(others, Counter(equal))


def _list_beyond(digests: Sequence[bytes], equal: Counter[bytes]) -> Sequence[int]:
    numbers: list[int] = []
    for number, digest in enumerate(digests):
        if equal[digest]:
            equal[digest] -= 1
        else:
            numbers.append(number)
    return numbers


def _ordinal(number: int) -> str:
    return f"number {number + 1} with this name" if number else ""


def _iter_keyed(archive: ArchiveReader) -> Iterator[tuple[_Key, ArchivedDocument]]:
    seen = Counter[str]()
    for document in archive.iter_documents():
        yield (document.name, seen[document.name]), document
        seen[document.name] += 1


def _index(archive: ArchiveReader) -> dict[str, list[bytes]]:
    """Return the digests of documents by name."""
    index: dict[str, list[bytes]] = {}
    for document in archive.iter_documents():
        index.setdefault(document.name, []).append(bytes.fromhex(_digest(document)))
    return index


def _digest(document: ArchivedDocument) -> str:
    value = document.to_json()
    for name in ("id", "rule", "file", "file_reason", "status", "error"):
        value.pop(name, None)
    return compute_digest(value)


def _compare_settings(a: ArchiveReader, b: ArchiveReader) -> Iterator[DatasetDifference]:
    first, second = a.manifest.dataset, b.manifest.dataset
    pairs: dict[str, tuple[Any, Any]] = {
        "fields": (dict(first.fields), dict(second.fields)),
        "tags": ([*first.tags], [*second.tags]),
    }
    for kind, (one, other) in pairs.items():
        if one != other:
            yield DatasetDifference(kind=kind, document=None, detail=f"{one} / {other}")
    for name in ("technique", "description", "has_built_in_fields", "rule"):
        one, other = getattr(first, name), getattr(second, name)
        if name == "rule":
            one, other = _normalize_rule(one), _normalize_rule(other)
        if one != other and one is not None and other is not None:
            yield DatasetDifference(
                kind="settings", document=None, detail=f"{name}: {one} / {other}"
            )


def _normalize_rule(rule: Mapping[str, Any] | None) -> object:
    """Return a rule without what versions write differently."""
    try:
        return None if rule is None else codec.encode(ProcessRule.from_response(rule))
    except ConfigError:
        return rule


def _compare_documents(
    a: ArchivedDocument, b: ArchivedDocument, *, keywords: bool
) -> Iterator[DatasetDifference]:
    def describe(kind: str, detail: str) -> DatasetDifference:
        return DatasetDifference(kind=kind, document=a.name, detail=detail)

    for name in ("form", "language"):
        one, other = getattr(a, name), getattr(b, name)
        if one != other and None not in {one, other}:
            yield describe(name, f"{one} / {other}")
    if (a.enabled, a.archived) != (b.enabled, b.archived):
        yield describe("state", f"{_describe_state(a)} / {_describe_state(b)}")
    if dict(a.metadata) != dict(b.metadata):
        changed = sorted(
            name
            for name in {*a.metadata, *b.metadata}
            if a.metadata.get(name) != b.metadata.get(name)
        )
        yield describe("metadata", ", ".join(changed))
    one_texts = [(chunk.content, chunk.answer) for chunk in a.chunks]
    other_texts = [(chunk.content, chunk.answer) for chunk in b.chunks]
    if one_texts != other_texts:
        yield describe("chunks", _describe_chunks(one_texts, other_texts))
        return
    pairs = list(zip(a.chunks, b.chunks, strict=True))
    yield from _compare_chunks(describe, pairs, a, b, keywords=keywords)


def _compare_chunks(
    describe: Any,
    pairs: Sequence[tuple[ArchivedChunk, ArchivedChunk]],
    a: ArchivedDocument,
    b: ArchivedDocument,
    *,
    keywords: bool,
) -> Iterator[DatasetDifference]:
    def list_positions(differs: Any) -> str:
        found = [number for number, pair in enumerate(pairs, 1) if differs(*pair)]
        shown = ", ".join(map(str, found[:10]))
        return f"chunks {shown}{', …' if len(found) > 10 else ''}" if found else ""  # noqa: PLR2004

    if a.form == DocForm.HIERARCHICAL:
        where = list_positions(lambda one, other: [*one.children] != [*other.children])
        if where:
            yield describe("child_chunks", where)
    if keywords:
        where = list_positions(lambda one, other: {*one.keywords} != {*other.keywords})
        if where:
            yield describe("keywords", where)
    if a.is_searchable and b.is_searchable:
        where = list_positions(lambda one, other: one.enabled != other.enabled)
        if where:
            yield describe("disabled_chunks", where)


def _describe_state(document: ArchivedDocument) -> str:
    state = "enabled" if document.enabled else "disabled"
    return f"{state}, archived" if document.archived else state


def _describe_chunks(one: Sequence[object], other: Sequence[object]) -> str:
    if len(one) != len(other):
        return f"{len(one)} / {len(other)} chunks"
    changed = [
        number for number, pair in enumerate(zip(one, other, strict=True), 1) if pair[0] != pair[1]
    ]
    return f"chunks {', '.join(map(str, changed[:10]))}{', …' if len(changed) > 10 else ''}"  # noqa: PLR2004
