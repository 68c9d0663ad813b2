"""All public calls with wrong values for each argument: an error that names it, and no hang."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

import dify_kb
from dify_kb import (
    ArchiveSource,
    AsyncClient,
    Client,
    Condition,
    ExternalRetrieval,
    Field,
    FileTimes,
    FrontMatter,
    GitSource,
    Item,
    KnowledgeError,
    LoadTiming,
    MetadataFilter,
    ModelRef,
    NewSegment,
    PathPattern,
    Policy,
    Polling,
    ProcessRule,
    RetrievalModel,
    Retry,
    SummaryIndexSetting,
    Table,
    Timeout,
    UrlList,
    resources,
)
from dify_kb.blocking._make_blocking import BlockingIterator
from dify_kb.emulator import Emulator
from dify_kb.errors import ApiError, SourceError
from dify_kb.models import DocumentMetadata, MetadataValue, ProcessMode

PACKAGE = Path(dify_kb.__file__).parent
T = TypeVar("T")

ID = "11111111-1111-4111-8111-111111111111"


async def _coroutine() -> None:
    pass


WRONG: Mapping[str, Callable[[], object]] = {
    "None": lambda: None,
    "7": lambda: 7,
    "True": lambda: True,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-1": lambda: -1,
    "empty text": str,
    "space": lambda: " ",
    "NUL": lambda: "\0",
    "surrogate": lambda: "\ud800",
    "long text": lambda: "x" * 10_000,
    "word": lambda: "fuzzy",
    "bytes": lambda: b"x",
    "empty list": list,
    "list": lambda: [7],
    "empty dict": dict,
    "dict": lambda: {"a": object()},
    "set": lambda: {"a"},
    "object": object,
    "function": lambda: lambda *_: 7,
    "coroutine": _coroutine,
    "path": lambda: Path("nothing here"),
    "naive time": lambda: datetime(2026, 1, 1),  # noqa: DTZ001 -- the point
    "generator": lambda: (each for each in [7]),
    "class": lambda: Warning,
    "other model": lambda: ModelRef(provider="a", model="b"),
    "field": lambda: Field("a"),
}
"""What people pass by mistake."""

WRONG_IN_BLOCKING = {
    label: WRONG[label]
    for label in ("None", "7", "surrogate", "word", "empty list", "dict", "coroutine", "generator")
}
"""Some of each kind: the blocking methods call the others, which are tested with all."""


def _share(names: str, values: T) -> dict[str, T]:
    return dict.fromkeys(names.split(), values)


TEXTS = frozenset({"empty text", "space", "NUL", "long text", "word"})
"""Values that are legitimate where any text is."""

ACCEPTED: Mapping[str, tuple[frozenset[str], str]] = {
    **_share(
        "answer api_key base_url batch child_separator content credential_id datasource_type"
        " description doc_language external_knowledge_api_id external_knowledge_id keyword model"
        " model_name model_provider_name model_type node_id provider separator start_node_id"
        " summary summary_prompt text",
        (TEXTS, "any text; the server decides"),
    ),
    "name": (TEXTS, "any text within the limits of the server"),
    "query": (TEXTS, "any text of up to 250 characters"),
    "file": (frozenset({"bytes"}), "the content of a file"),
    **_share(
        "include exclude as_text",
        (frozenset({"NUL", "surrogate", "long text", "word", "empty list"}), "a glob"),
    ),
    **_share(
        "datasource_info_list documents keywords partial_member_list source",
        (frozenset({"empty list"}), "no items"),
    ),
    **_share("status tag_ids", (frozenset({"empty list"}), "no filter")),
    **_share("headers inputs", (frozenset({"empty dict"}), "no items")),
    "journal": (frozenset({"space", "word", "path"}), "a path"),
    "metadata": (frozenset({"empty list", "empty dict", "function", "class"}), "no values"),
    **_share("embedding rerank", (frozenset({"other model"}), "a ModelRef")),
    "on_event": (frozenset({"function", "class"}), "called after each event"),
}
"""The values of each argument, besides its default, that a call may accept, with the reason."""

BUILT: Mapping[str, frozenset[str]] = {
    **_share(
        "answer content model model_name model_provider_name name provider separator"
        " child_separator summary_prompt",
        frozenset({"surrogate"}),
    ),
    "attachment_ids": frozenset({"empty list"}),
    "conditions": frozenset({"empty list"}),
    "document_id": TEXTS | {"surrogate"},
    "enable": frozenset({"None"}),
    "extra": frozenset({"dict", "empty dict"}),
    "field": TEXTS | {"surrogate"},
    "key": TEXTS | {"surrogate"},
    "lookup_intervals": frozenset({"list"}),
    "metadata": frozenset({"dict"}),
    "metadata_list": frozenset({"empty list"}),
    "path": TEXTS | {"path", "surrogate"},
    "score_threshold": frozenset({"7", "nan", "inf", "-1"}),
    "text": frozenset({"surrogate"}),
    "time": frozenset({"7", "-1"}),
    "top_k": frozenset({"-1"}),
    "total": frozenset({"None"}),
    "urls": TEXTS | {"surrogate", "empty list", "path", "generator", "set"},
    "value": TEXTS | {"7", "nan", "inf", "-1", "None", "surrogate", "empty list"},
    "values": frozenset({"list", "set", "empty list"}),
}
"""The values that a builder accepts besides, and that are refused by the call, or by the server."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "api_key": ("API key",),
    "base_url": ("server address",),
    "dataset_id": ("dataset to load",),
    "embedding": ("embedding model",),
    "include": ("glob pattern",),
    "exclude": ("glob pattern",),
    "as_text": ("glob pattern",),
    "journal": ("The path",),
    "name": ("profile",),
    "score_threshold": ("score threshold",),
    "source": ("Cannot load", "The path"),
    "text": ("the value",),
    "time": ("the value",),
    "url": ("git address",),
    "values": ("the value",),
}
"""Other words for an argument in messages, which the shell shows too."""


def _describe(error: BaseException, name: str) -> str | None:
    """Return what is wrong with an error; None if it is ours and names the argument."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    last = Path(frame.f_code.co_filename)
    is_ours = PACKAGE in last.parents and PACKAGE / "emulator" not in last.parents
    if not (is_ours and isinstance(error, KnowledgeError | TypeError | ValueError)):
        return f"{type(error).__name__} of {last.name}:{line}: {error}"
    text = str(error)
    if isinstance(error, ApiError | SourceError) or any(
        word in text for word in (name, *NAMES.get(name, ()))
    ):
        return None
    return f"{type(error).__name__} without the name: {error}"


def _is_legitimate(parameter: inspect.Parameter, label: str, *, is_sent: bool) -> bool:
    expected = {*ACCEPTED.get(parameter.name, ((), ""))[0]}
    if not is_sent:
        expected |= BUILT.get(parameter.name, frozenset())
    of_type = {
        "None": "None" in f"{parameter.annotation} {parameter.default}",
        "True": "bool" in str(parameter.annotation),
        "7": type(parameter.default) in {int, float}
        or re.search("int|float|Duration", str(parameter.annotation)) is not None,
    }
    return label in expected or of_type.get(label, False)


def find_faults(
    call: Callable[..., Any],
    valid: Mapping[str, Any],
    run: Callable[[Callable[[], Any]], object],
    *,
    is_sent: bool = True,
    wrong: Mapping[str, Callable[[], object]] = WRONG,
) -> dict[str, str]:
    """Return the outcome of each wrong value that raises no error of ours with its name."""
    faults: dict[str, str | None] = {}
    for parameter in inspect.signature(call).parameters.values():
        name = parameter.name
        for label, create in wrong.items():
            value = create()
            try:
                run(functools.partial(call, **{**valid, name: value}))
            except Exception as error:  # noqa: BLE001 -- all that are not ours are faults
                faults[f"{name}={label}"] = _describe(error, name)
            else:
                is_legitimate = _is_legitimate(parameter, label, is_sent=is_sent)
                faults[f"{name}={label}"] = None if is_legitimate else "accepted"
            if inspect.iscoroutine(value):
                value.close()
    return {case: fault for case, fault in faults.items() if fault is not None}


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create journals whose path is a wrong value elsewhere."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[Emulator]:
    with Emulator() as started:
        yield started


@pytest.fixture(scope="module")
def blocking(server: Emulator) -> Iterator[Client]:
    with Client(server.url, server.api_key, policy=Policy().scaled(0.01)) as client:
        yield client


@pytest.fixture(scope="module")
def valid(blocking: Client) -> dict[str, Any]:
    """Create one of each object, and return valid arguments by their names."""
    dataset = blocking.datasets.create("Handbook", indexing_technique="economy")
    created = blocking.documents.create_by_text(dataset, "a.txt", "Hold the button to reset it.")
    blocking.documents.wait(dataset, [created])
    segment = blocking.segments.list(dataset, created.document.id).data[0]
    field = blocking.metadata.create(dataset, "year", type="number")
    tag = blocking.tags.create("a")
    return {
        "batch": created.batch,
        "child_chunk_id": ID,
        "content": "a",
        "dataset_id": blocking.datasets.get(dataset),
        "datasource_info_list": [],
        "datasource_type": "local_file",
        "document_id": created.document.id,
        "document_ids": [created.document.id],
        "documents": [created.document.id],
        "file": b"a",
        "metadata_id": field.id,
        "model_type": "rerank",
        "name": "a.txt",
        "node_id": "1",
        "query": "a",
        "segment_id": segment.id,
        "segments": ["a"],
        "source": [],
        "start_node_id": "1",
        "tag_id": tag.id,
        "tag_ids": [tag.id],
        "text": "a",
        "type": "string",
        "values": {created.document.id: {"year": 2024}},
    }


def _list_methods() -> list[tuple[str, str]]:
    nouns = {
        name: inspect.signature(member.fget).return_annotation
        for name, member in inspect.getmembers(AsyncClient, lambda one: isinstance(one, property))
        if member.fget
    }
    return [
        (noun, method)
        for noun, kind in sorted(nouns.items())
        if kind in resources.__all__
        for method, _ in inspect.getmembers(getattr(resources, kind), inspect.isfunction)
        if not method.startswith("_")
    ] + [("", method) for method in ("load", "load_iter", "with_options")]


def _run_blocking(call: Callable[[], Any]) -> None:
    result = call()
    if isinstance(result, Iterator):
        list(result)


async def _run_async(call: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        result = call()
        if inspect.isawaitable(result):
            await result
        elif hasattr(result, "pages"):
            async for _ in result:
                pass


def _select(call: Callable[..., Any], valid: Mapping[str, Any], noun: str) -> dict[str, Any]:
    """Return the valid arguments for the parameters without a default, and a name for files."""
    parameters = inspect.signature(call).parameters
    required = {name for name, one in parameters.items() if one.default is one.empty}
    chosen = {name: valid[name] for name in required | ({"name"} & parameters.keys())}
    if noun == "metadata" and "documents" in chosen:
        value = MetadataValue(id=valid["metadata_id"], name="year", value=2024)
        assigned = DocumentMetadata(document_id=valid["document_id"], metadata_list=[value])
        chosen["documents"] = [assigned]
    return chosen


@pytest.mark.parametrize(("noun", "method"), _list_methods())
def test_blocking_methods_refuse_wrong_arguments_by_name(
    noun: str, method: str, blocking: Client, valid: dict[str, Any]
) -> None:
    """Not by an error of a library, of the event loop or of the interpreter, and without a hang."""
    call = getattr(getattr(blocking, noun) if noun else blocking, method)

    faults = find_faults(call, _select(call, valid, noun), _run_blocking, wrong=WRONG_IN_BLOCKING)

    assert faults == {}


@pytest.mark.parametrize(("noun", "method"), _list_methods())
def test_async_methods_refuse_wrong_arguments_by_name(
    noun: str, method: str, server: Emulator, valid: dict[str, Any]
) -> None:
    """Likewise."""
    with asyncio.Runner() as runner:
        client = AsyncClient(server.url, server.api_key, policy=Policy().scaled(0.01))
        call = getattr(getattr(client, noun) if noun else client, method)

        faults = find_faults(
            call, _select(call, valid, noun), lambda one: runner.run(_run_async(one))
        )
        runner.run(client.aclose())

    assert faults == {}


SEARCH = RetrievalModel.keyword()
BUILDERS: Sequence[tuple[Callable[..., Any], dict[str, Any]]] = [
    (ArchiveSource, {"path": "a.zip"}),
    (AsyncClient, {"base_url": "http://a.test", "api_key": "dataset-a"}),
    (Client, {"base_url": "http://a.test", "api_key": "dataset-a"}),
    (AsyncClient.from_profile, {}),
    (Client.from_profile, {}),
    (Condition, {"name": "a", "comparison_operator": "is", "value": "b"}),
    (DocumentMetadata, {"document_id": ID, "metadata_list": []}),
    (ExternalRetrieval, {"top_k": 2, "score_threshold": 0.5, "score_threshold_enabled": True}),
    (Field, {"name": "a"}),
    (FileTimes, {}),
    (FrontMatter, {}),
    (GitSource, {"url": "git+https://a.test/b.git"}),
    *((getattr(Field("year"), name), {}) for name in ("contains", "is_", "in_", "before")),
    *((getattr(Field("year"), name), {}) for name in ("__gt__", "__le__", "__eq__", "__ne__")),
    (Item, {"key": "a.txt", "text": "a"}),
    (LoadTiming, {}),
    (MetadataFilter, {}),
    (ModelRef, {"provider": "a", "model": "b"}),
    (NewSegment, {"content": "a"}),
    (PathPattern, {"pattern": "{team}/**"}),
    (Policy, {}),
    (Policy().scaled, {}),
    (Polling, {}),
    (ProcessRule, {"mode": ProcessMode.AUTOMATIC}),
    (ProcessRule.custom, {}),
    (ProcessRule.parent_child, {}),
    (ProcessRule.from_response, {}),
    (RetrievalModel, {"search_method": "keyword_search"}),
    (RetrievalModel.semantic, {}),
    (RetrievalModel.full_text, {}),
    (RetrievalModel.keyword, {}),
    (RetrievalModel.hybrid_weighted, {"embedding": ModelRef(provider="a", model="b")}),
    (RetrievalModel.hybrid_reranked, {"rerank": ModelRef(provider="a", model="b")}),
    (Retry, {}),
    (SummaryIndexSetting, {}),
    (Table, {"path": "a.csv"}),
    (Timeout, {}),
    (UrlList, {"urls": ["https://a.test/b"]}),
]


@pytest.mark.filterwarnings("ignore:.*separator .* is not ASCII")
@pytest.mark.parametrize(("build", "given"), BUILDERS)
def test_builders_refuse_wrong_arguments_by_name(
    build: Callable[..., Any], given: dict[str, Any], tmp_path: Path
) -> None:
    """When they are built, not when a call uses them."""
    folder = tmp_path / "config" / "dify-kb"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        'default_profile = "a"\n[a]\nurl = "http://a.test"\nkey_command = "echo dataset-a"\n'
    )
    faults = find_faults(build, given, lambda call: call(), is_sent=False)

    assert faults == {}


COROUTINE = _coroutine()
COROUTINE.close()

HINTS: Sequence[tuple[str, dict[str, Any], str]] = [
    ("load", {"dataset_id": None, "source": "a"}, "datasets.find() returns None if no dataset"),
    ("load", {"dataset_id": COROUTINE, "source": "a"}, "Did you forget await?"),
    ("load", {"dataset_id": ID, "source": None}, "source must be a string, a path, an Item"),
    ("load", {"dataset_id": ID, "source": "a", "metadata": "a=b"}, "metadata must be a mapping"),
    ("load", {"dataset_id": ID, "source": "a", "include": 5}, "include must be a string or a list"),
    ("load", {"dataset_id": ID, "source": "a", "workers": 3}, "Client.load(): got an unexpected"),
    ("load", {"dataset_id": ID}, "Client.load(): missing a required argument: 'source'."),
    ("load_iter", {"dataset_id": ID, "source": "a", "dry_run": True}, "Client.load_iter(): got an"),
]


@pytest.mark.parametrize(("method", "arguments", "message"), HINTS)
def test_messages_tell_what_to_do(method: str, arguments: dict[str, Any], message: str) -> None:
    """In both clients, with the class that the user called, and at the call of the blocking one."""
    client = Client("http://a.test", "dataset-a")
    with pytest.raises(TypeError, match=re.escape(message)) as raised:
        getattr(client, method)(**arguments)
    assert "Async" not in str(raised.value)
    assert not any("_loop_thread" in frame.filename for frame in traceback.extract_tb(raised.tb))

    async def call() -> None:
        await _run_async(
            functools.partial(getattr(AsyncClient("http://a.test", "a"), method), **arguments)
        )

    with pytest.raises(TypeError, match=re.escape(message)):
        asyncio.run(call())


ASYNC: Any = AsyncClient("http://a.test", "a")
BLOCKING: Any = Client("http://a.test", "a")
EVENTS = {"dataset_id": ID, "node_id": "1", "datasource_type": "local_file"}


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (ASYNC.__enter__, "AsyncClient requires 'async with'"),
        (lambda: asyncio.run(BLOCKING.__aenter__()), "Client requires 'with'"),
        (lambda: iter(ASYNC.datasets.iter()), "Iterate with 'async for'"),
        (lambda: iter(ASYNC.load_iter(ID, "a")), "Iterate with 'async for'"),
        (lambda: iter(ASYNC.pipeline.run_datasource(**EVENTS)), "Iterate with 'async for'"),
        (lambda: aiter(cast("Any", BlockingIterator(each for each in [1]))), "Iterate with 'for'"),
    ],
    ids=["with", "async with", "for", "for result", "for event", "async for"],
)
def test_the_syntax_of_the_other_client_is_refused_with_the_right_one(
    use: Callable[[], object], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        use()


def test_methods_keep_their_kind_and_signature() -> None:
    """Frameworks inspect functions to decide whether to await them."""
    assert inspect.iscoroutinefunction(AsyncClient.load)
    assert inspect.iscoroutinefunction(resources.Datasets.get)
    assert not inspect.iscoroutinefunction(Client.load)
    assert [*inspect.signature(resources.Datasets.get).parameters] == ["self", "dataset_id"]
    assert [*inspect.signature(ModelRef).parameters] == ["provider", "model"]
