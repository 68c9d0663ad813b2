from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import typer

import dify_kb
from dify_kb.config import MAX_FILE_SIZE
from dify_kb.errors import ForbiddenError, KnowledgeError, UnauthorizedError

from . import exit_codes, output
from .bulk import format_count
from .output import DiagnosticCheck
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb import AsyncClient, ModelType

TESTED_VERSIONS = ("1.4.3", "1.8.1", "1.12.1", "1.16")
HANGING_VERSIONS = ("1.12.0", "1.12.1")


def doctor(context: typer.Context) -> None:
    """Check address, key, version and models.

    Costs four read requests.
    """
    command: CommandContext = context.obj

    async def main() -> int:
        code = 0
        async with command.create_client() as client:
            async for check in _run_checks(client):
                output.print_check(check, json=command.json)
                if check.status == "failed":
                    code = (
                        exit_codes.ACCESS_DENIED
                        if check.check == "key"
                        else exit_codes.GENERAL_ERROR
                    )
        return code

    command.run(main)


async def _run_checks(client: AsyncClient) -> AsyncIterator[DiagnosticCheck]:
    """Run the checks in order; stop after a failure that makes the other checks useless."""
    try:
        info = await client.ping()
    except KnowledgeError as error:
        yield DiagnosticCheck(
            check="address", status="failed", detail=error.summary, remedy=error.hint
        )
        return
    yield DiagnosticCheck(check="address", status="ok", detail=f"{client.base_url} responds")
    yield _check_version(info.server_version)
    try:
        page = await client.datasets.list(limit=1, include_all=True)
    except KnowledgeError as error:
        is_refused = isinstance(error, UnauthorizedError | ForbiddenError)
        yield DiagnosticCheck(
            check="key" if is_refused else "server",
            status="failed",
            detail=error.summary,
            remedy=error.hint,
        )
        return
    yield DiagnosticCheck(
        check="key", status="ok", detail=f"valid for {format_count(page.total, 'dataset')}"
    )
    for kind, lack in (
        (dify_kb.ModelType.TEXT_EMBEDDING, "only economy datasets (keyword search) are possible"),
        (dify_kb.ModelType.RERANK, "search results cannot be reranked"),
    ):
        yield await _check_models(client, kind, lack)
    yield DiagnosticCheck(
        check="limits",
        status="ok",
        detail=f"files of up to {MAX_FILE_SIZE // 2**20} MiB are sent; the server's own limit is"
        " unknown (default: 15 MiB; set by UPLOAD_FILE_SIZE_LIMIT)",
    )


def _check_version(version: str | None) -> DiagnosticCheck:
    if version is None:
        return DiagnosticCheck(
            check="version",
            status="warning",
            detail="unknown: the response has no X-Version header",
            remedy="Check whether a proxy removes the X-Version header.",
        )
    if version in HANGING_VERSIONS:
        return DiagnosticCheck(
            check="version",
            status="warning",
            detail=f"Dify {version}: updating a document in place blocks its worker permanently",
            remedy="Replace documents by name, as `dify-kb load` does, or upgrade Dify.",
        )
    if not version.startswith(TESTED_VERSIONS):
        return DiagnosticCheck(
            check="version",
            status="warning",
            detail=f"Dify {version} is not tested (tested: {', '.join(TESTED_VERSIONS)})",
            remedy="Most features should work; please report any problem.",
        )
    return DiagnosticCheck(check="version", status="ok", detail=f"Dify {version}")


async def _check_models(client: AsyncClient, kind: ModelType, lack: str) -> DiagnosticCheck:
    name = f"{kind} models"
    try:
        providers = await client.workspace.models(kind)
    except KnowledgeError as error:
        return DiagnosticCheck(check=name, status="failed", detail=error.summary, remedy=error.hint)
    refs = [
        f"{ref.provider}:{ref.model}" for provider in providers for ref in provider.model_refs()
    ]
    if refs:
        return DiagnosticCheck(check=name, status="ok", detail=", ".join(refs))
    return DiagnosticCheck(
        check=name,
        status="warning",
        detail=f"none: {lack}",
        remedy="Add a model provider in the Dify console under Settings.",
    )
