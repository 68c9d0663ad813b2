"""Deleting and switching documents, one or all that fit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import typer

from dify_kb import AsyncClient, Dataset

from . import bulk, choose, find
from .act import act, json
from .documents import documents
from .find import Thing
from .options import All, DryRun, InDataset, Names, Pattern, Where, WithStatus, Yes

Switch = Callable[[Dataset, Sequence[str]], Awaitable[None]]


@documents.command("delete")
def delete(
    context: typer.Context,
    dataset: InDataset,
    names: Names = None,
    name: Pattern = None,
    status: WithStatus = None,
    filter_: Where = None,
    all_: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete documents: those that are named, or all that fit.

    Asks first where there are several. Archived ones are refused.
    """
    asked = choose.wanted(names, name, status, filter_, everything=all_)

    async def main(client: AsyncClient) -> int:
        where = await find.dataset(client, dataset)
        things = await choose.documents(client, where, asked)
        teller = bulk.Teller("document", "deleted", json=json(context))
        if dry_run:
            return teller.would(things)
        if len(things) > 1:
            await bulk.ask(bulk.counted(len(things), "document"), [*map(str, things)], yes=yes)
        return await bulk.one_by_one(
            things, lambda thing: client.documents.delete(where, thing.id), teller
        )

    act(context, main)


def _switch(verb: str, word: str, call: Callable[[AsyncClient], Switch], told: str) -> None:
    """Add a command that switches documents; `word` is what they are then."""

    @documents.command(verb, help=told)
    def switch(
        context: typer.Context,
        dataset: InDataset,
        names: Names = None,
        name: Pattern = None,
        status: WithStatus = None,
        filter_: Where = None,
        all_: All = False,
        dry_run: DryRun = False,
    ) -> None:
        asked = choose.wanted(names, name, status, filter_, everything=all_)

        async def main(client: AsyncClient) -> int:
            where = await find.dataset(client, dataset)
            things = await choose.documents(client, where, asked)
            teller = bulk.Teller("document", word, json=json(context))
            if dry_run:
                return teller.would(things)

            async def work(batch: Sequence[Thing]) -> None:
                await call(client)(where, [thing.id for thing in batch])

            return await bulk.together(things, work, teller)

        act(context, main)


_switch(
    "enable",
    "enabled",
    lambda client: client.documents.enable,
    "Let documents be found again; since Dify 1.8.",
)
_switch(
    "disable",
    "disabled",
    lambda client: client.documents.disable,
    "Keep documents from being found; since Dify 1.8.\n\n"
    "Those that are not indexed yet are refused.",
)
_switch(
    "archive",
    "archived",
    lambda client: client.documents.archive,
    "Keep documents from being found and deleted; since Dify 1.8.",
)
_switch(
    "unarchive",
    "unarchived",
    lambda client: client.documents.unarchive,
    "Take documents out of the archive; since Dify 1.8.",
)
