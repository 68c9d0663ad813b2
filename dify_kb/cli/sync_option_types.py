"""The options that `dify-kb sync` and `dify-kb diff` have in common."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

StateName = Literal["journal", "base"]
DeleteModeName = Literal["delete", "disable", "archive", "keep"]

StateOption = Annotated[
    StateName,
    typer.Option(
        "--state",
        help="Where to remember what was sent: in the journal on this machine, or in metadata of"
        " the documents (base), for CI, containers and several machines.",
    ),
]
IdOption = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="NAME",
        help="Name of this sync, the same in each run, if PATH differs between machines; default:"
        " derived from dataset and PATH.",
    ),
]
DeleteOption = Annotated[
    DeleteModeName,
    typer.Option(
        "--delete",
        help="Action for documents whose file is gone. disable and archive take them out of search,"
        " as a trash.",
    ),
]
MaxDeleteOption = Annotated[
    str | None,
    typer.Option(
        "--max-delete",
        metavar="N|PERCENT",
        help="Delete nothing if more documents would be deleted: 100, or 30%; default: 50%, at"
        " least 20.",
    ),
]
AdoptOption = Annotated[
    bool,
    typer.Option(
        "--adopt",
        help="Take over documents that this sync did not make, if name and size are those of a"
        " file.",
    ),
]
AllowEmptyOption = Annotated[
    bool, typer.Option("--allow-empty", help="Accept a source without files.")
]
DeleteExcludedOption = Annotated[
    bool,
    typer.Option(
        "--delete-excluded",
        help="Delete the documents of files that exist but are left out now, too.",
    ),
]
RespectDeletesOption = Annotated[
    bool,
    typer.Option(
        "--respect-deletes", help="Do not make documents again that a person has deleted."
    ),
]
ProtectEditsOption = Annotated[
    bool,
    typer.Option(
        "--protect-edits",
        help="Keep documents back whose chunks a person has edited; one request per 100 chunks of"
        " what would be overwritten.",
    ),
]
CheckOption = Annotated[
    list[str] | None,
    typer.Option(
        "--check",
        metavar="FILE",
        help="Change nothing unless the source contains FILE, as a sign that a share is mounted;"
        " repeatable.",
    ),
]
EmptyTrashOption = Annotated[
    str | None,
    typer.Option(
        "--empty-trash",
        metavar="DURATION",
        help="Delete documents that --delete disable or archive has put into the trash longer ago:"
        " 30d.",
    ),
]
