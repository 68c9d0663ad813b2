"""The endpoint catalog: complete, consistent with the API, and used by exactly one method each."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dify_kb
from dify_kb.emulator.handlers import HANDLERS
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import NOTHING, Endpoint, Repeatability, RequestEncoding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE = Path(dify_kb.__file__).parent
TABLE = Path(__file__).parents[1] / "data" / "endpoints.json"

DIFFERENCES: Mapping[str, str] = {}
"""Endpoints that differ from the table, by name, each with its reason and source."""

SINCE: Mapping[str, str] = {
    "after 1.2.0, <=1.8.1": "1.8",
    "main (1.16 docs), not in 1.12.1": "1.16",
    "main (docs 2026-03), not in 1.12.1": "1.16",
    "main (1.16 docs), not registered in 1.11.4/1.12.1": "1.16",
    "after 1.8.1, <=1.11.4": "1.11",
}
"""First versions as written in the table, and in the catalog."""

GONE: Mapping[str, tuple[str, str]] = {
    "server.info": ("1.8", "recording 009: 404 on 1.8.1, 1.12.1 and 1.14.2"),
}
"""Operations that servers lack although the table does not say so."""

NARROWED: Mapping[str, tuple[str | None, str]] = {
    "segments.get": (None, "recordings 522, 523: 1.4.3 has it"),
    **dict.fromkeys(
        (
            "documents.update_by_file",
            "pipeline.upload_file",
            "pipeline.datasource_plugins",
            "pipeline.run_datasource",
            "pipeline.run",
        ),
        ("1.14.2", "recordings 1380 to 1402 and 1540 to 1563 of 1.14.2"),
    ),
    **dict.fromkeys(
        ("documents.download_url", "documents.download_zip"),
        ("1.13.1", "the first release with the routes; recordings 432 and 1350 of 1.14.2"),
    ),
    **dict.fromkeys(
        (
            "tags.list",
            "tags.create",
            "tags.update",
            "tags.delete",
            "tags.bind",
            "tags.unbind",
            "tags.list_for_dataset",
        ),
        ("1.4.2", "measured: tags need 1.4.2, and 1.4.3 has them"),
    ),
}
"""Endpoints whose first version is known more precisely than in the table."""

REPEATS = {
    "documents.create_by_text": (Repeatability.UPSERT, "measured: replaced by name"),
    "documents.create_by_file": (Repeatability.UPSERT, "measured: replaced by name"),
    "documents.update_by_text": (Repeatability.UPSERT, "measured: two runs double the chunks"),
    "documents.update_by_file": (Repeatability.UPSERT, "measured: two runs double the chunks"),
    "datasets.create": (Repeatability.CREATE, "a second request makes a second dataset, or a 409"),
    "segments.create": (Repeatability.CREATE, "measured: duplicated content is allowed"),
    "child_chunks.create": (Repeatability.CREATE, "as segments.create"),
    "metadata.create": (Repeatability.CREATE, "measured: a second one is a 400"),
    "tags.create": (Repeatability.CREATE, "recording 822: a second one is a 400"),
    "pipeline.upload_file": (Repeatability.CREATE, "a second request stores a second file"),
    "pipeline.run_datasource": (Repeatability.CREATE, "a run costs what its source costs"),
    "pipeline.run": (Repeatability.CREATE, "a second run brings everything in again"),
    "datasets.update": (Repeatability.IDEMPOTENT, "sets what is already so"),
    "documents.set_status": (Repeatability.IDEMPOTENT, "sets what is already so"),
    "segments.update": (Repeatability.IDEMPOTENT, "sets what is already so"),
    "child_chunks.update": (Repeatability.IDEMPOTENT, "sets what is already so"),
    "metadata.update": (Repeatability.IDEMPOTENT, "sets what is already so"),
    "metadata.set_built_in": (Repeatability.IDEMPOTENT, "sets what is already so"),
    "metadata.assign": (Repeatability.IDEMPOTENT, "sets what is already so"),
    "tags.update": (Repeatability.IDEMPOTENT, "sets what is already so"),
    "tags.bind": (Repeatability.IDEMPOTENT, "a tag that is bound stays so"),
    "tags.unbind": (Repeatability.IDEMPOTENT, "a tag that is off stays so"),
    "datasets.retrieve": (Repeatability.SAFE, "a POST that only reads"),
    "documents.download_zip": (Repeatability.SAFE, "a POST that only reads"),
}
"""The repeatability of endpoints that cannot be derived from the verb."""

BY_VERB = {"GET": Repeatability.SAFE, "DELETE": Repeatability.IDEMPOTENT}
WHERE = {"application/json": RequestEncoding.JSON, "multipart/form-data": RequestEncoding.FORM}


def load_operations() -> Mapping[tuple[str, str], Mapping[str, Any]]:
    rows = json.loads(TABLE.read_text("utf-8"))
    return {(row["method"], row["path"]): row for row in rows}


def list_constants() -> Mapping[str, Endpoint[Any, Any]]:
    return {name: value for name, value in vars(catalog).items() if isinstance(value, Endpoint)}


def count_uses() -> Counter[str]:
    """Count the uses of `catalog.X` in the client's source."""
    sources = [*PACKAGE.glob("resources/*.py"), PACKAGE / "client_methods.py"]
    return Counter(
        node.attr
        for source in sources
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "catalog"
    )


def iter_called_names(endpoint: Endpoint[Any, Any]) -> Iterator[str]:
    yield from (part for part in endpoint.path.split("/") if part.startswith("{"))


@pytest.mark.parametrize("endpoint", catalog.ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_entry_is_an_operation_of_the_api(endpoint: Endpoint[Any, Any]) -> None:
    """The emulator uses the same catalog, so other tests would not find a wrong path."""
    operation = load_operations().get((endpoint.method, endpoint.path))

    assert operation or endpoint.name in DIFFERENCES


@pytest.mark.parametrize("endpoint", catalog.ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_entry_has_the_status_of_its_operation(endpoint: Endpoint[Any, Any]) -> None:
    """The emulator returns this status as the current server version."""
    operation = load_operations()[endpoint.method, endpoint.path]

    assert endpoint.status == operation["success_status"] or endpoint.name in DIFFERENCES


@pytest.mark.parametrize("endpoint", catalog.ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_entry_sends_its_model_where_the_operation_takes_it(
    endpoint: Endpoint[Any, Any],
) -> None:
    """A server that reads the body ignores a model sent in the query."""
    operation = load_operations()[endpoint.method, endpoint.path]
    request = operation.get("request")

    if request is None:
        assert endpoint.encoding in {RequestEncoding.NONE, RequestEncoding.QUERY}
    else:
        assert endpoint.encoding is WHERE[request]


@pytest.mark.parametrize("endpoint", catalog.ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_entry_takes_a_model_exactly_when_it_sends_one(endpoint: Endpoint[Any, Any]) -> None:
    """`encoding` and `request_type` must not contradict each other."""
    assert (endpoint.request_type is NOTHING) == (endpoint.encoding is RequestEncoding.NONE)


@pytest.mark.parametrize("endpoint", catalog.ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_entry_says_rightly_what_repeating_does(endpoint: Endpoint[Any, Any]) -> None:
    """A wrong value would repeat a create after a lost response, and duplicate documents."""
    expected = BY_VERB.get(endpoint.method) or REPEATS[endpoint.name][0]

    assert endpoint.repeatability is expected


@pytest.mark.parametrize("endpoint", catalog.ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_entry_says_since_when_servers_have_it(endpoint: Endpoint[Any, Any]) -> None:
    """The error for a 404 of an old server mentions this version."""
    words = load_operations()[endpoint.method, endpoint.path]["since"]
    known, _ = NARROWED.get(endpoint.name, (SINCE.get(words), ""))

    assert (endpoint.legacy.before if endpoint.legacy else endpoint.since) == known
    assert (words in SINCE) == (words != "<=1.2.0")


@pytest.mark.parametrize("endpoint", catalog.ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_entry_says_until_when_servers_had_it(endpoint: Endpoint[Any, Any]) -> None:
    """The error for a 404 of a new server mentions this version."""
    removed = load_operations()[endpoint.method, endpoint.path].get("removed")
    if endpoint.name in GONE:
        assert endpoint.until == GONE[endpoint.name][0]
        return

    assert (endpoint.until is None) == (removed is None)
    assert removed is None or removed.endswith(f"<={endpoint.until}.4")


@pytest.mark.parametrize(
    "endpoint",
    [endpoint for endpoint in catalog.ENDPOINTS if endpoint.legacy],
    ids=lambda endpoint: endpoint.name,
)
def test_a_legacy_path_is_an_alias_of_the_operation(endpoint: Endpoint[Any, Any]) -> None:
    """The table lists the legacy path as an alias of the new one, or the other way round."""
    older = endpoint.legacy
    assert older is not None
    ways = {(endpoint.method, endpoint.path), (older.method, older.path)}

    assert any(
        ways == {route, *((alias["method"], alias["path"]) for alias in row["aliases"])} & ways
        for route, row in load_operations().items()
    )
    assert set(iter_called_names(endpoint)) >= {
        part for part in older.path.split("/") if part.startswith("{")
    }


def test_every_operation_of_the_api_is_an_entry() -> None:
    """Users could not reach an operation that is missing."""
    older = {(e.legacy.method, e.legacy.path) for e in catalog.ENDPOINTS if e.legacy}
    entries = {(endpoint.method, endpoint.path) for endpoint in catalog.ENDPOINTS}

    assert set(load_operations()) - entries <= older
    assert len(entries) == 47


@pytest.mark.parametrize("endpoint", catalog.ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_entry_is_served_by_exactly_one_handler(endpoint: Endpoint[Any, Any]) -> None:
    """Without a handler the operation cannot be tested; of two, only the first would be used."""
    assert [served.endpoint for served in HANDLERS].count(endpoint) == 1


def test_the_differences_are_of_entries_that_exist() -> None:
    """An outdated exception would hide the next difference of that name."""
    assert set(DIFFERENCES) | set(REPEATS) | set(NARROWED) <= {
        endpoint.name for endpoint in catalog.ENDPOINTS
    }


def test_every_constant_is_in_the_list_of_endpoints() -> None:
    """The emulator and these tests only see the endpoints in `ENDPOINTS`."""
    assert set(list_constants().values()) == set(catalog.ENDPOINTS)


def test_names_and_routes_are_used_once() -> None:
    """Fault plans, logs and the journal refer to endpoints by name."""
    names = [endpoint.name for endpoint in catalog.ENDPOINTS]
    routes = [(endpoint.method, endpoint.path) for endpoint in catalog.ENDPOINTS]

    assert len(set(names)) == len(names)
    assert len(set(routes)) == len(routes)


@pytest.mark.parametrize("name", list_constants())
def test_an_entry_is_sent_by_exactly_one_method(name: str) -> None:
    """Without a method the operation cannot be used; two methods would diverge."""
    assert count_uses()[name] == 1


def test_the_client_names_no_entry_that_is_not_there() -> None:
    """A misspelt name would fail only when its method is called."""
    assert set(count_uses()) <= {*list_constants(), "NOTHING"}


def test_paths_stand_in_the_catalogue_alone() -> None:
    """These tests cannot check a path written anywhere else in the client."""
    sources = [*PACKAGE.glob("resources/*.py"), *PACKAGE.glob("transport/*.py")]
    paths = [
        f"{source.name}: {node.value}"
        for source in [*sources, PACKAGE / "client_methods.py"]
        for node in ast.walk(ast.parse(source.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith(("/datasets", "/workspaces"))
    ]

    assert paths == []


@pytest.mark.parametrize(
    "endpoint",
    [endpoint for endpoint in catalog.ENDPOINTS if "{" in endpoint.path],
    ids=lambda endpoint: endpoint.name,
)
def test_path_parameters_are_filled_and_quoted(endpoint: Endpoint[Any, Any]) -> None:
    """An id with a slash or question mark must not reach another route."""
    slots = {slot.strip("{}"): "a/b?c=%" for slot in iter_called_names(endpoint)}
    call = endpoint.call(**slots) if endpoint.request_type is NOTHING else endpoint(None, **slots)

    assert "{" not in call.path
    assert call.path.count("a%2Fb%3Fc%3D%25") == len(slots)
