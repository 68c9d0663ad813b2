from __future__ import annotations

from dify_kb.emulator import stand_ins
from dify_kb.emulator.context import Context, nothing, serves
from dify_kb.emulator.refused import invalid_param
from dify_kb.models import ModelProviders, ModelType
from dify_kb.wire import catalog


@serves(catalog.LIST_MODELS, nothing)
def models(context: Context, _: None) -> ModelProviders:
    """Tell the models of a type: the stand-ins, where the workspace has any."""
    model_type = context.slots["model_type"]
    if not ModelType(model_type).known:
        raise invalid_param(f"invalid origin model type {model_type}")
    data = stand_ins.listed(model_type, context.store.tenant) if context.models else []
    return ModelProviders(data=data)


HANDLERS = (models,)
