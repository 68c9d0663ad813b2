from __future__ import annotations

import json as _json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import dify_kb
from dify_kb.errors import ConfigError
from dify_kb.models import SegmentStatus

from . import bulk, name_lookup, option_types, output, segment_tables
from .list_options import LimitOption, RowOrder, SortOption
from .name_lookup import ResourceRef
from .option_types import ContainsOption, DatasetOption, DocumentOption, YesOption
from .output_streams import is_quiet
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, NewSegment, Segment

segments = typer.Typer(
    help="Manage the chunks of a document.", no_args_is_help=True, rich_markup_mode=None
)

segments.command("export")(segment_tables.export_table)
segments.command("import")(segment_tables.import_table)

SegmentArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the chunk.")]
SegmentArguments = Annotated[list[str], typer.Argument(metavar="ID", help="Ids of chunks.")]
KeywordsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keyword",
        metavar="WORD",
        help="Keyword of the chunk, for keyword search; repeatable.",
    ),
]
AnswerOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Answer of the chunk, in a question-answer dataset."),
]


@segments.command("list")
def list_(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    contains: ContainsOption = None,
    status: Annotated[
        list[option_types.SegmentStatusChoice] | None,
        typer.Option(
            metavar=option_types.format_choices(option_types.SegmentStatusChoice),
            help="Only chunks with this status; repeatable.",
        ),
    ] = None,
    sort: SortOption = None,
    limit: LimitOption = None,
) -> None:
    """List the chunks of a document, in order."""
    order = RowOrder(sort, limit)

    async def main(client: AsyncClient) -> None:
        target, document_ref = await _find_document(client, dataset, document)
        found = client.segments.iter(
            target,
            document_ref.id,
            keyword=contains or dify_kb.UNSET,
            status=[SegmentStatus(word) for word in status] if status else dify_kb.UNSET,
        )
        await order.print_rows(
            "segment",
            found,
            {
                "position": lambda row: row.position,
                "text": lambda row: output.shorten(row.content),
                "status": lambda row: row.status,
                "enabled": lambda row: row.enabled,
                "id": lambda row: row.id,
            },
            json=is_json_output(context),
        )

    run_with_client(context, main)


@segments.command("show")
def show_(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    segment: SegmentArgument,
) -> None:
    """Show a chunk."""

    async def main(client: AsyncClient) -> None:
        target, document_ref = await _find_document(client, dataset, document)
        _print_segment(context, await client.segments.get(target, document_ref.id, segment))

    run_with_client(context, main)


@segments.command("create")
def create(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Text of a new chunk.")
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE|-",
            help="Append the chunks in FILE, one JSON string or object per line.",
            parser=option_types.parse_path,
        ),
    ] = None,
    keyword: KeywordsOption = None,
    answer: AnswerOption = None,
) -> None:
    """Append chunks to a document, in order.

    Objects in --from have a `content`, and may have an `answer` and `keywords`, like the output of
    `segments list --json`. Chunks are sent 50 at a time; after an error the number of chunks that
    were created is printed.
    """
    new_segments = _read_segments(from_) if from_ else []
    new_segments += [
        dify_kb.NewSegment(
            content=text, answer=answer or dify_kb.UNSET, keywords=keyword or dify_kb.UNSET
        )
        for text in texts or ()
    ]
    if not new_segments:
        raise ConfigError("No chunks to append.", hint="Pass texts or --from.")

    async def main(client: AsyncClient) -> int:
        target, document_ref = await _find_document(client, dataset, document)
        try:
            created = await client.segments.create_many(target, document_ref.id, new_segments)
        except dify_kb.PartialError as error:
            _report_created(
                context, [row for row in error.done if isinstance(row, dify_kb.Segment)]
            )
            return bulk.report_partial(error, json=is_json_output(context))
        return _report_created(context, created)

    run_with_client(context, main)


@segments.command("update")
def update(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    segment: SegmentArgument,
    content: Annotated[str | None, typer.Option(metavar="TEXT", help="Text of the chunk.")] = None,
    answer: AnswerOption = None,
    keyword: KeywordsOption = None,
) -> None:
    """Change a chunk.

    The server indexes it again. Values without an option stay unchanged. --keyword replaces all
    keywords.
    """
    if content is None and answer is None and not keyword:
        raise ConfigError("Nothing to change.", hint="Pass --content, --answer or --keyword.")

    async def main(client: AsyncClient) -> None:
        target, document_ref = await _find_document(client, dataset, document)
        changed = await client.segments.update(
            target,
            document_ref.id,
            segment,
            content=dify_kb.UNSET if content is None else content,
            answer=dify_kb.UNSET if answer is None else answer,
            keywords=keyword or dify_kb.UNSET,
        )
        _print_segment(context, changed)

    run_with_client(context, main)


@segments.command("enable")
def enable(
    context: typer.Context, dataset: DatasetOption, document: DocumentOption, ids: SegmentArguments
) -> None:
    """Include chunks in search again."""
    _set_enabled(context, dataset, document, ids, enabled=True)


@segments.command("disable")
def disable(
    context: typer.Context, dataset: DatasetOption, document: DocumentOption, ids: SegmentArguments
) -> None:
    """Exclude chunks from search."""
    _set_enabled(context, dataset, document, ids, enabled=False)


@segments.command("delete")
def delete(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    ids: SegmentArguments,
    yes: YesOption = False,
) -> None:
    """Delete chunks.

    Asks for confirmation if there are several.
    """
    things = name_lookup.parse_ids("chunk", ids)

    async def main(client: AsyncClient) -> int:
        target, document_ref = await _find_document(client, dataset, document)
        if len(things) > 1:
            await bulk.confirm_deletion(
                bulk.format_count(len(things), "chunk"), [*map(str, things)], yes=yes
            )
        return await bulk.change_each(
            things,
            lambda thing: client.segments.delete(target, document_ref.id, thing.id),
            bulk.ChangeReporter("chunk", "deleted", json=is_json_output(context)),
        )

    run_with_client(context, main)


def _set_enabled(
    context: typer.Context, dataset: str, document: str, ids: Sequence[str], *, enabled: bool
) -> None:
    things = name_lookup.parse_ids("chunk", ids)

    async def main(client: AsyncClient) -> int:
        target, document_ref = await _find_document(client, dataset, document)

        async def work(thing: ResourceRef) -> None:
            await client.segments.update(target, document_ref.id, thing.id, enabled=enabled)

        word = "enabled" if enabled else "disabled"
        return await bulk.change_each(
            things, work, bulk.ChangeReporter("chunk", word, json=is_json_output(context))
        )

    run_with_client(context, main)


async def _find_document(
    client: AsyncClient, dataset: str, document: str
) -> tuple[Dataset, ResourceRef]:
    target = await name_lookup.find_dataset(client, dataset)
    return target, await name_lookup.find_document(client, target, document)


def _read_segments(file: Path) -> list[NewSegment]:
    """Parse the chunks of a JSON Lines file.

    Raises:
        ConfigError: the file cannot be read, or a line is invalid.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"Cannot read chunks from {str(file)!r}: {getattr(error, 'strerror', None) or error}.",
            hint="Pass a UTF-8 file of JSON Lines, or - for standard input.",
        ) from error
    lines = enumerate(text.splitlines(), 1)
    return [_parse_segment(number, line) for number, line in lines if line.strip()]


def _parse_segment(number: int, line: str) -> NewSegment:
    try:
        value: Any = _json.loads(line)
    except ValueError:
        value = None
    if isinstance(value, str):
        return dify_kb.NewSegment(content=value)
    if isinstance(value, Mapping) and isinstance(value.get("content"), str):
        return dify_kb.NewSegment(
            content=value["content"],
            answer=value.get("answer") or dify_kb.UNSET,
            keywords=value.get("keywords") or dify_kb.UNSET,
        )
    raise ConfigError(
        f"Invalid chunk in line {number} of --from: {line[:60]!r}.",
        hint='Pass a JSON string or {"content": "…"} in each line.',
    )


def _report_created(context: typer.Context, created: Sequence[Segment]) -> int:
    """Print the new chunks and return the exit code; embedding a chunk may have failed."""
    failed = [row for row in created if row.status == dify_kb.SegmentStatus.ERROR]
    if is_json_output(context):
        for row in created:
            output.print_model("segment", row)
    else:
        for row in failed:
            output.err.print(f"failed  {row.id}: {output.escape(row.error or 'no reason given')}")
        if not is_quiet():
            output.out.print(f"Appended {bulk.format_count(len(created) - len(failed), 'chunk')}.")
    return bulk.SOME_FAILED if failed else 0


def _print_segment(context: typer.Context, segment: Segment) -> None:
    rows = {
        "id": segment.id,
        "position": segment.position,
        "status": segment.status,
        "enabled": segment.enabled,
        "error": segment.error,
        "characters": segment.word_count,
        "keywords": ", ".join(segment.keywords or ()) or None,
        "answer": segment.answer,
        "updated": segment.updated_at,
        "text": segment.content,
    }
    output.print_details("segment", segment, rows, json=is_json_output(context))
