from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.argument_checks import check_methods
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.models import ModelProvider, ModelType


@check_methods
@frozen
class Workspace:
    """The workspace that the API key belongs to."""

    _send: CallSender

    async def models(self, model_type: ModelType | str) -> Sequence[ModelProvider]:
        """Return the providers of models of a type, each with its active models.

        Costs one request. `ModelProvider.model_refs` returns the models as arguments for
        `datasets.create`.

        Raises:
            BadRequestError: the model type does not exist.
        """
        return (await self._send(catalog.LIST_MODELS.call(model_type=str(model_type)))).data
