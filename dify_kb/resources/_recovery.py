"""Recover from a lost response: find out on the server whether the request succeeded."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from dify_kb.errors import ApiError, KnowledgeError, OutcomeUnknownError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def recover(call: Awaitable[T], find: Callable[[], Awaitable[T | None]]) -> T:
    """Await a call; if its response was lost, return what `find` finds on the server instead.

    Also called when the retry of a call is rejected, as what it requests may already be done.

    Raises:
        KnowledgeError: that of the call, if it failed otherwise, or if `find` fails or finds None.
    """
    try:
        return await call
    except (ApiError, OutcomeUnknownError) as error:
        if isinstance(error, ApiError) and not error.after_lost_response:
            raise
        try:
            found = await find()
        except KnowledgeError:
            found = None
        if found is None:
            raise
        return found
