"""Request handlers for server information and the list of models."""

from __future__ import annotations

from dify_kb.emulator import stub_models
from dify_kb.emulator.errors import invalid_param_error
from dify_kb.emulator.request_context import RequestContext, handles, ignore_body
from dify_kb.models import ModelProviders, ModelType, ServerInfo
from dify_kb.wire import catalog


@handles(catalog.GET_SERVER_INFO, ignore_body)
def get_server_info(context: RequestContext, _: None) -> ServerInfo:
    """Return name and version of the server; requires no API key."""
    return ServerInfo(
        welcome="Dify OpenAPI", api_version="v1", server_version=context.profile.version
    )


@handles(catalog.LIST_MODELS, ignore_body)
def list_models(context: RequestContext, _: None) -> ModelProviders:
    """List the stub models of a type; empty if the workspace has no models."""
    model_type = context.path_parameters["model_type"]
    if not ModelType(model_type).is_known:
        raise invalid_param_error(context.profile.model_type_error.format(model_type))
    data = (
        stub_models.list_providers(model_type, context.store.tenant) if context.has_models else []
    )
    return ModelProviders(data=data)


HANDLERS = (get_server_info, list_models)
