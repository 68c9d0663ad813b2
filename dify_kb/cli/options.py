"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Status = Literal["queuing", "indexing", "paused", "error", "available", "disabled", "archived"]

InDataset = Annotated[
    str, typer.Option("--dataset", metavar="NAME|ID", help="Name or id of the dataset.")
]
OfDocument = Annotated[
    str, typer.Option("--document", metavar="NAME|ID", help="Name or id of the document.")
]
OfSegment = Annotated[str, typer.Option("--segment", metavar="ID", help="Id of the chunk.")]

Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME|ID", help="Names or ids of documents.")
]
Pattern = Annotated[
    str | None, typer.Option("--name", metavar="GLOB", help="Documents whose name matches.")
]
WithStatus = Annotated[Status | None, typer.Option("--status", help="Documents that are so.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--filter", metavar="CONDITION", help="On metadata, e.g. 'year < 2020'; all must hold."
    ),
]
All = Annotated[bool, typer.Option("--all", help="All documents of the dataset.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be changed.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting several.")]
