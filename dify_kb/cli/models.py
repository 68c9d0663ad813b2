from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import evolve, frozen

import dify_kb
from dify_kb.errors import KnowledgeError
from dify_kb.models.workspace import ModelProvider, ModelType, ProviderModel

from . import name_lookup, option_types, output
from .list_options import LimitOption, RowOrder, SortOption
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient

models = typer.Typer(
    help="List the models of the workspace.", no_args_is_help=True, rich_markup_mode=None
)

ModelTypesOption = Annotated[
    list[option_types.ModelTypeChoice] | None,
    typer.Option(
        "--type",
        metavar=option_types.format_choices(option_types.ModelTypeChoice),
        help="Only models of this type; repeatable. Default: text-embedding and rerank.",
    ),
]
DEFAULT_TYPES = (option_types.ModelTypeChoice.TEXT_EMBEDDING, option_types.ModelTypeChoice.RERANK)


@frozen
class ModelOffer:
    """A model of a provider."""

    kind: ModelType
    provider: ModelProvider
    model: ProviderModel

    @property
    def name(self) -> str:
        """The name that `--embedding` accepts."""
        return f"{self.provider.provider}:{self.model.model}"


@models.command("list")
def list_(
    context: typer.Context,
    type_: ModelTypesOption = None,
    sort: SortOption = None,
    limit: LimitOption = None,
) -> None:
    """List models by the names that `--embedding` accepts."""
    order = RowOrder(sort, limit)

    async def main(client: AsyncClient) -> None:
        await order.print_rows(
            "model",
            await _list_offers(client, type_),
            {
                "model": lambda row: row.name,
                "type": lambda row: row.kind,
                "status": lambda row: row.model.status,
            },
            json=is_json_output(context),
        )

    run_with_client(context, main)


@models.command("show")
def show_(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="MODEL", help="PROVIDER:MODEL, or the model's name.")
    ],
    type_: ModelTypesOption = None,
) -> None:
    """Show a model.

    With --json its provider, with only this model.
    """

    async def main(client: AsyncClient) -> None:
        offers = await _list_offers(client, type_)
        offer = select_model(name, offers)
        if is_json_output(context):
            output.print_model("provider", evolve(offer.provider, models=[offer.model]))
            return
        model = offer.model
        rows = {
            "provider": offer.provider.provider,
            "model": model.model,
            "type": model.model_type or offer.kind,
            "status": model.status,
            "deprecated": model.deprecated,
            **dict(model.model_properties or {}),
        }
        output.print_table(("", ""), rows.items())

    run_with_client(context, main)


async def _list_offers(
    client: AsyncClient, kinds: Sequence[option_types.ModelTypeChoice] | None
) -> list[ModelOffer]:
    return [
        ModelOffer(kind, provider, model)
        for kind in map(dify_kb.ModelType, kinds or DEFAULT_TYPES)
        for provider in await client.workspace.models(kind)
        for model in provider.models
    ]


def select_model(name: str, offers: list[ModelOffer]) -> ModelOffer:
    """Return the model with this name.

    Raises:
        KnowledgeError: the model does not exist, or several providers offer it.
    """
    matches = [offer for offer in offers if name in {offer.name, offer.model.model}]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(offer.name for offer in matches)
        raise KnowledgeError(
            f"{len(matches)} models are named {name!r}.", hint=f"Pass one of {names}."
        )
    known = [word for offer in offers for word in (offer.name, offer.model.model)]
    suggestions = name_lookup.suggest_names(name, known)
    suggestion = f"Did you mean {' or '.join(map(repr, suggestions))}? " if suggestions else ""
    raise KnowledgeError(
        f"Model not found: {name!r}.",
        hint=f"{suggestion}Run `dify-kb models list` to see embedding and rerank models; pass"
        " --type for others.",
    )
