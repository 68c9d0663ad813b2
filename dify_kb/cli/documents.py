from __future__ import annotations

from typing import Annotated, Literal

import typer

from dify_kb.models import UNSET
from dify_kb.wire import codec

from . import find, show
from .app import Session, app

Status = Literal["queuing", "indexing", "paused", "error", "available", "disabled", "archived"]

documents = typer.Typer(
    help="The documents of a dataset.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(documents, name="documents")


@documents.command("list")
def list_(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(help="Name or id of the dataset.")],
    keyword: Annotated[
        str | None, typer.Option(help="A part of the name; % and _ are wildcards.")
    ] = None,
    status: Annotated[
        Status | None, typer.Option(help="Only these; servers before 1.11 list all.")
    ] = None,
) -> None:
    """List the documents of a dataset, the newest first."""
    session: Session = context.obj

    async def main() -> int:
        async with session.client() as client:
            where = await find.dataset(client, dataset)
            rows = client.documents.iter(where, keyword=keyword or UNSET, status=status or UNSET)
            found = [row async for row in rows]
        if session.json:
            for row in found:
                show.line({"type": "document", **codec.fields(row)})
            return 0
        show.table(
            ("name", "status", "characters", "error", "id"),
            ((row.name, row.display_status, row.word_count, row.error, row.id) for row in found),
        )
        return 0

    session.run(main)
