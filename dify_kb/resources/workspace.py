from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.models import ModelProvider, ModelType


@frozen
class Workspace:
    """The workspace that the key belongs to."""

    _send: CallSender

    async def models(self, model_type: ModelType | str) -> Sequence[ModelProvider]:
        """List the providers that offer models of a type, each with its active models.

        One request. `ModelProvider.refs` names the models as `datasets.create` takes them.

        Raises:
            BadRequestError: no such type.
        """
        return (await self._send(catalog.LIST_MODELS.call(model_type=str(model_type)))).data
