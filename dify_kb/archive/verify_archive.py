"""Verify the members of an archive by their checksums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from attrs import asdict, frozen

from dify_kb.errors import ArchiveError

from .archive_format import file_name
from .compare import CompareReport
from .read_archive import ArchiveReader, check_member

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

MAX_PROBLEMS: Final = 100
"""Problems that a report lists."""


@frozen(kw_only=True)
class VerifyReport:
    """The result of a verification. Truthy if the archive is complete and undamaged.

    `problems` are sentences, 100 at most; `problem_count` is the number of all. `bytes` is the size
    of the members that were read. `comparison` is that with a knowledge base, if one was wanted:
    the report is then falsy if something differs, too.
    """

    path: str
    documents: int = 0
    chunks: int = 0
    files: int = 0
    bytes: int = 0
    problem_count: int = 0
    problems: Sequence[str] = ()
    comparison: CompareReport | None = None

    def __bool__(self) -> bool:
        return not self.problem_count and self._is_equal

    @property
    def _is_equal(self) -> bool:
        return self.comparison is None or bool(self.comparison)

    @property
    def exit_code(self) -> int:
        """The exit code of the command line: 1 if a member is damaged or something differs."""
        return 0 if self else 1

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the report as JSON values."""
        return asdict(self)

    def raise_for_problems(self) -> None:
        """Raise ArchiveError unless the report is truthy.

        Raises:
            ArchiveError: with the first problem and the number of others.
        """
        if not self:
            others = f" {self.problem_count - 1} more problems." if self.problem_count > 1 else ""
            raise ArchiveError(
                f"Archive {self.path} is damaged: {self.problems[0]}{others}",
                hint="Restore it from a copy, or export the dataset again.",
            )


def verify_archive(
    path: str | os.PathLike[str], on_member: Callable[[int, int], None] = lambda _, __: None
) -> VerifyReport:
    """Read all members of an archive and compare them with the manifest. Blocking.

    The journal of the export, `state.sqlite`, is not part of the archive.

    Args:
        on_member: called with the number of members that were read, and of all.
    """
    try:
        reader = ArchiveReader.open(path)
    except ArchiveError as error:
        return VerifyReport(path=str(path), problem_count=1, problems=[error.summary])
    with reader:
        problems, count = list[str](), 0
        for problem in _iter_problems(reader, on_member):
            count += 1
            if len(problems) < MAX_PROBLEMS:
                problems.append(problem)
        manifest = reader.manifest
        return VerifyReport(
            path=str(path),
            documents=manifest.documents,
            chunks=manifest.chunks,
            files=manifest.files,
            bytes=sum(member.size for member in manifest.members.values()),
            problem_count=count,
            problems=problems,
        )


def _iter_problems(reader: ArchiveReader, on_member: Callable[[int, int], None]) -> Iterator[str]:
    manifest = reader.manifest
    shards, total = frozenset(manifest.shards), len(manifest.members)
    problem = reader.check_zip()
    if problem is not None:
        yield problem
    documents = chunks = 0
    for number, name in enumerate(sorted(manifest.members), 1):
        problem = check_member(reader, name)
        if problem is not None:
            yield problem
        elif name in shards:
            try:
                for document in reader.iter_shard(name):
                    documents += 1
                    chunks += len(document.chunks)
                    if document.file and file_name(document.file.sha256) not in manifest.members:
                        yield f"The file of document {document.name!r} is missing."
            except ArchiveError as error:
                yield error.summary
        on_member(number, total)
    if (documents, chunks) != (manifest.documents, manifest.chunks):
        yield (
            f"The archive has {documents} documents with {chunks} chunks instead of"
            f" {manifest.documents} with {manifest.chunks}."
        )
