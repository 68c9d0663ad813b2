from __future__ import annotations

from typing import Annotated, Literal

import typer

from dify_kb import Dataset, ModelRef
from dify_kb.errors import ConfigError
from dify_kb.models import UNSET, Unset
from dify_kb.wire import codec

from . import find, show
from .app import Session, app

datasets = typer.Typer(help="Knowledge bases.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(datasets, name="datasets")

Technique = Literal["high_quality", "economy"]
Named = Annotated[str, typer.Argument(metavar="NAME|ID", help="Name or id of the dataset.")]


@datasets.command("list")
def list_(
    context: typer.Context,
    keyword: Annotated[str | None, typer.Option(help="A part of the name.")] = None,
) -> None:
    """List the datasets, the newest first."""
    session: Session = context.obj

    async def main() -> int:
        async with session.client() as client:
            found = [row async for row in client.datasets.iter(keyword=keyword or UNSET)]
        if session.json:
            for row in found:
                show.line({"type": "dataset", **codec.fields(row)})
            return 0
        show.table(
            ("name", "documents", "technique", "created", "id"),
            (
                (row.name, row.document_count, row.indexing_technique, row.created_at, row.id)
                for row in found
            ),
        )
        return 0

    session.run(main)


@datasets.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="1 to 40 characters, unique in the workspace.")],
    technique: Annotated[
        Technique | None, typer.Option(help="Else the first document decides.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="At most 400 characters.")] = None,
    embedding: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER:MODEL", help="Embedding model of a high_quality dataset."),
    ] = None,
) -> None:
    """Create an empty dataset."""
    session: Session = context.obj

    async def main() -> int:
        async with session.client() as client:
            made = await client.datasets.create(
                name,
                indexing_technique=technique or UNSET,
                description=description or UNSET,
                embedding=_model(embedding),
            )
        _show(session, made)
        return 0

    session.run(main)


@datasets.command("show")
def show_(context: typer.Context, name: Named) -> None:
    """Show one dataset."""
    session: Session = context.obj

    async def main() -> int:
        async with session.client() as client:
            _show(session, await find.dataset(client, name))
        return 0

    session.run(main)


@datasets.command("delete")
def delete(context: typer.Context, name: Named) -> None:
    """Delete a dataset with all its documents."""
    session: Session = context.obj

    async def main() -> int:
        async with session.client() as client:
            found = await find.dataset(client, name)
            await client.datasets.delete(found)
        if session.json:
            show.line({"type": "deleted", "id": found.id, "name": found.name})
        else:
            show.out.print(f"Deleted {show.printable(found.name)} ({found.id}).")
        return 0

    session.run(main)


def _model(given: str | None) -> ModelRef | Unset:
    if given is None:
        return UNSET
    provider, colon, model = given.partition(":")
    if not (provider and colon and model):
        raise ConfigError(
            f"--embedding is {given!r}.",
            hint="Write PROVIDER:MODEL as `dify-kb doctor` lists them.",
        )
    return ModelRef(provider=provider, model=model)


def _show(session: Session, dataset: Dataset) -> None:
    if session.json:
        show.line({"type": "dataset", **codec.fields(dataset)})
        return
    model = dataset.embedding_model
    rows = {
        "id": dataset.id,
        "name": dataset.name,
        "description": dataset.description or None,
        "technique": dataset.indexing_technique,
        "embedding": f"{dataset.embedding_model_provider}:{model}" if model else None,
        "chunks are": dataset.doc_form,
        "documents": dataset.document_count,
        "available": dataset.total_available_documents,
        "characters": dataset.word_count,
        "created": dataset.created_at,
        "updated": dataset.updated_at,
    }
    show.table(("", ""), rows.items())
