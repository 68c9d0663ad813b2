"""The Bedrock retriever, against botocore's stubber, which validates requests and responses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from retrieval_server import build_conditions, serve_retriever

from dify_kb.errors import ConfigError
from dify_kb.external import BedrockRetriever

KNOWLEDGE_BASE_ID = "KB12345678"
RESULTS = [
    {
        "content": {"type": "TEXT", "text": "Zebras graze."},
        "location": {"type": "S3", "s3Location": {"uri": "s3://zoo/animals/zebra.md"}},
        "score": 0.71,
        "metadata": {"x-amz-bedrock-kb-source-uri": "s3://zoo/animals/zebra.md", "year": 2024.0},
        "documentId": "zebra-1",
    },
    {
        "content": {"type": "TEXT", "text": "Foxes dig."},
        "location": {"type": "WEB", "webLocation": {"url": "https://zoo.example/fox/"}},
        "score": 0.42,
        "metadata": {"year": 2020.0, "day": "2020-05-01"},
    },
    {"content": {"type": "IMAGE", "byteContent": "data:image/png;base64,AA=="}, "score": 0.4},
    {"content": {"type": "TEXT", "text": "Of unknown descent."}},
]


@pytest.fixture
def client() -> Any:
    return import_module("boto3").client(
        "bedrock-agent-runtime",
        region_name="us-east-1",
        aws_access_key_id="no-key",
        aws_secret_access_key="no-secret",
    )


@pytest.fixture
def stubber(client: Any) -> Iterator[Any]:
    with import_module("botocore.stub").Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def search_parameters(text: str = "zebra", /, **search: object) -> dict[str, object]:
    configuration = {"numberOfResults": 4, "overrideSearchType": "HYBRID"} | search
    return {
        "knowledgeBaseId": KNOWLEDGE_BASE_ID,
        "retrievalQuery": {"text": text},
        "retrievalConfiguration": {"vectorSearchConfiguration": configuration},
    }


def search_results(*results: object) -> dict[str, object]:
    return {"retrievalResults": [*results]}


async def test_hybrid_search_returns_records(client: Any, stubber: Any) -> None:
    stubber.add_response("retrieve", search_results(*RESULTS), search_parameters())
    async with serve_retriever(BedrockRetriever(KNOWLEDGE_BASE_ID, client=client)) as server:
        records = (await server.retrieve()).records

    assert records == [
        {
            "content": "Zebras graze.",
            "score": 0.71,
            "title": "zebra.md",
            "metadata": {
                "x-amz-bedrock-kb-source-uri": "s3://zoo/animals/zebra.md",
                "year": 2024.0,
                "document_id": "zebra-1",
                "uri": "s3://zoo/animals/zebra.md",
                "type": "S3",
            },
        },
        {
            "content": "Foxes dig.",
            "score": 0.42,
            "title": "fox",
            "metadata": {
                "year": 2020.0,
                "day": "2020-05-01",
                "document_id": "https://zoo.example/fox/",
                "uri": "https://zoo.example/fox/",
                "type": "WEB",
            },
        },
        {"content": "Of unknown descent.", "score": 0.0, "title": "", "metadata": {}},
    ]


async def test_limits_and_options_are_sent_to_bedrock(client: Any, stubber: Any) -> None:
    arn = "arn:aws:bedrock:us-east-1::foundation-model/cohere.rerank-v3-5:0"
    reranking = {
        "type": "BEDROCK_RERANKING_MODEL",
        "bedrockRerankingConfiguration": {"modelConfiguration": {"modelArn": arn}},
    }
    expected = search_parameters(
        "z" * 20_000,
        numberOfResults=100,
        overrideSearchType="SEMANTIC",
        rerankingConfiguration=reranking,
    )
    stubber.add_response("retrieve", search_results(), expected)
    retriever = BedrockRetriever(
        KNOWLEDGE_BASE_ID, client=client, search_type="SEMANTIC", reranking_model_arn=arn
    )
    async with serve_retriever(retriever) as server:
        assert (await server.retrieve("z" * 30_000, top_k=500)).records == []


async def test_search_type_none_uses_the_default_of_bedrock(client: Any, stubber: Any) -> None:
    expected = search_parameters()
    configuration: Any = expected["retrievalConfiguration"]
    del configuration["vectorSearchConfiguration"]["overrideSearchType"]
    stubber.add_response("retrieve", search_results(), expected)
    async with serve_retriever(
        BedrockRetriever(KNOWLEDGE_BASE_ID, client=client, search_type=None)
    ) as server:
        assert (await server.retrieve()).records == []


def comparison(name: str, key: str, value: object) -> dict[str, object]:
    return {name: {"key": key, "value": value}}


FILTERS: list[tuple[dict[str, object], dict[str, object], list[str]]] = [
    (build_conditions(("year", "=", 2020)), comparison("equals", "year", 2020), ["fox"]),
    (
        build_conditions(("year", "≥", 2021)),
        comparison("greaterThanOrEquals", "year", 2021),
        ["zebra.md"],
    ),
    (
        build_conditions(("day", "in", ["2020-05-01"])),
        comparison("in", "day", ["2020-05-01"]),
        ["fox"],
    ),
    (build_conditions(("type", "is", "S3")), {}, ["zebra.md"]),
    (
        build_conditions(("year", ">", 2000), ("year", "<", 2021)),
        {"andAll": [comparison("greaterThan", "year", 2000), comparison("lessThan", "year", 2021)]},
        ["fox"],
    ),
    (
        build_conditions(("year", "≤", 2020), ("day", "before", "2021-01-01")),
        comparison("lessThanOrEquals", "year", 2020),
        ["fox"],
    ),
    (build_conditions(("year", "is", "2020.0")), {}, ["fox"]),
    (build_conditions(("year", "is not", 2020)), {}, ["zebra.md"]),
    (build_conditions(("year", "empty", None)), {}, [""]),
    (
        build_conditions(("year", "=", 2020), ("type", "is", "S3"), logical_operator="or"),
        {},
        ["zebra.md", "fox"],
    ),
]


@pytest.mark.parametrize(("condition", "bedrock_filter", "titles"), FILTERS)
async def test_conditions_are_sent_if_bedrock_supports_them(
    client: Any,
    stubber: Any,
    condition: dict[str, object],
    bedrock_filter: dict[str, object],
    titles: list[str],
) -> None:
    """They are also applied to the results, so Dify's rules always hold."""
    search_filter = {"filter": bedrock_filter} if bedrock_filter else {}
    stubber.add_response(
        "retrieve", search_results(*RESULTS), search_parameters(numberOfResults=40, **search_filter)
    )
    async with serve_retriever(BedrockRetriever(KNOWLEDGE_BASE_ID, client=client)) as server:
        records = (await server.retrieve(metadata_condition=condition)).records

    assert [record["title"] for record in records] == titles


async def test_aws_error_gives_a_500_without_details(
    client: Any, stubber: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stubber.add_client_error("retrieve", "AccessDeniedException", "not allowed", 403)
    async with serve_retriever(BedrockRetriever(KNOWLEDGE_BASE_ID, client=client)) as server:
        response = await server.retrieve()

    assert response.status == 500
    assert "AccessDeniedException" in caplog.text
    assert "Access" not in response.body["error_msg"]


def test_missing_region_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")

    with pytest.raises(ConfigError, match="region"):
        BedrockRetriever(KNOWLEDGE_BASE_ID)


def test_without_boto3_only_the_bedrock_retriever_fails() -> None:
    program = (
        "import sys; sys.modules['boto3'] = None\n"
        "from dify_kb import external\n"
        "try:\n    external.BedrockRetriever('KB12345678')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    process = subprocess.run(  # noqa: S603 -- a fixed program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert process.stdout.startswith(
        "ConfigError Amazon Bedrock needs boto3, which is not installed."
    )
    assert "pip install 'dify-kb[bedrock]'" in process.stdout
