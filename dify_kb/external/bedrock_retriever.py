"""A retriever for Amazon Bedrock Knowledge Bases."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio.to_thread
from attrs import define, field

from dify_kb.errors import ConfigError
from dify_kb.models import ComparisonOperator, LogicalOperator

from .retriever import RetrievalRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.models import Condition, MetadataFilter

    from .retriever import RetrievalRequest

MAX_RESULTS: Final = 100
"""Maximum of `numberOfResults` in a Retrieve call of bedrock-agent-runtime."""

MAX_QUERY_CHARACTERS: Final = 20_000
"""Maximum characters of the query (botocore's service model)."""

_OPERATORS: Final[Mapping[ComparisonOperator, str]] = {
    ComparisonOperator.IS: "equals",
    ComparisonOperator.EQUAL: "equals",
    ComparisonOperator.IN: "in",
    ComparisonOperator.GREATER: "greaterThan",
    ComparisonOperator.GREATER_EQUAL: "greaterThanOrEquals",
    ComparisonOperator.LESS: "lessThan",
    ComparisonOperator.LESS_EQUAL: "lessThanOrEquals",
}
"""Operators with the same meaning in Bedrock and Dify. Bedrock's notEquals and notIn match records
without the field, and only some of its stores support startsWith and stringContains."""


_RESULT_METADATA: Final = ("document_id", "uri", "type")
"""Metadata added to each result; Bedrock cannot filter by it."""


@define
class BedrockRetriever:
    """A retriever for an Amazon Bedrock Knowledge Base; one Retrieve call per query.

    Requires boto3 (`pip install 'dify-kb[bedrock]'`) and AWS credentials in a place that boto3
    searches, with `bedrock:Retrieve` permission on the knowledge base. Conditions joined by `and`
    are sent to Bedrock if it supports them; all conditions, including dates, are then applied to
    the attributes of the results. The metadata of a record are the attributes of its source, plus
    `document_id`, `uri` and `type` of its location unless the source has attributes of these names.
    Results without text, such as images, are omitted.

    Args:
        knowledge_base_id: ten letters and digits, or an ARN.
        client: a boto3 client of `bedrock-agent-runtime`; None creates one. Its blocking calls run
            in threads.
        region_name: AWS region of the created client; None uses that of the environment.
        search_type: `HYBRID` requires a store that supports it: OpenSearch, Aurora, MongoDB. None
            uses Bedrock's default.
        reranking_model_arn: the model that reranks the results.

    Raises:
        ConfigError: boto3 is not installed, or no region is configured.
    """

    knowledge_base_id: str
    client: Any = field(default=None, kw_only=True, repr=False)
    region_name: str | None = field(default=None, kw_only=True)
    search_type: Literal["HYBRID", "SEMANTIC"] | None = field(default="HYBRID", kw_only=True)
    reranking_model_arn: str | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.client is None:
            self.client = _create_client(self.region_name)

    async def retrieve(self, query: RetrievalRequest) -> list[RetrievalRecord]:
        """Call Retrieve; boto3 determines the exceptions and the retries."""
        parameters = self._build_parameters(query)
        response = await anyio.to_thread.run_sync(
            lambda: self.client.retrieve(**parameters), abandon_on_cancel=True
        )
        records = (_to_record(result) for result in response["retrievalResults"])
        return [record for record in records if record is not None]

    def _build_parameters(self, query: RetrievalRequest) -> dict[str, Any]:
        search: dict[str, Any] = {"numberOfResults": min(query.top_k, MAX_RESULTS)}
        if self.search_type is not None:
            search["overrideSearchType"] = self.search_type
        if (bedrock_filter := _to_bedrock_filter(query.metadata_condition)) is not None:
            search["filter"] = bedrock_filter
        if self.reranking_model_arn is not None:
            model = {"modelConfiguration": {"modelArn": self.reranking_model_arn}}
            search["rerankingConfiguration"] = {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": model,
            }
        return {
            "knowledgeBaseId": self.knowledge_base_id,
            "retrievalQuery": {"text": query.query[:MAX_QUERY_CHARACTERS]},
            "retrievalConfiguration": {"vectorSearchConfiguration": search},
        }


def _create_client(region_name: str | None) -> Any:
    try:
        boto3 = import_module("boto3")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Amazon Bedrock needs boto3, which is not installed.",
            hint="pip install 'dify-kb[bedrock]'",
        ) from error
    try:
        return boto3.client("bedrock-agent-runtime", region_name=region_name)
    except import_module("botocore.exceptions").BotoCoreError as error:
        raise ConfigError(
            f"Cannot create a client for Amazon Bedrock: {error}",
            hint="Pass region_name, or set AWS_REGION.",
        ) from error


def _to_bedrock_filter(metadata_filter: MetadataFilter | None) -> dict[str, Any] | None:
    """Return the part of an `and` filter that Bedrock can evaluate; None for an `or` filter."""
    if metadata_filter is None or metadata_filter.logical_operator != LogicalOperator.AND:
        return None
    parts = [
        part
        for condition in metadata_filter.conditions
        if (part := _to_bedrock_condition(condition)) is not None
    ]
    if len(parts) > 1:
        return {"andAll": parts}
    return parts[0] if parts else None


def _to_bedrock_condition(condition: Condition) -> dict[str, Any] | None:
    """Translate a condition, or return None if Bedrock would compare its value differently."""
    name = _OPERATORS.get(condition.comparison_operator)
    value = condition.value
    if name is None or value is None or condition.name in _RESULT_METADATA:
        return None
    if name == "in":
        if not isinstance(value, list | tuple) or not value:
            return None
        # For Dify a stored number can equal a text in the list, for Bedrock it cannot.
        if any(_is_numeric(item) for item in value):
            return None
        return _comparison(name, condition, [*value])
    if isinstance(value, str) and (name != "equals" or _is_numeric(value)):
        return None
    return _comparison(name, condition, value)


def _comparison(name: str, condition: Condition, value: object) -> dict[str, Any]:
    return {name: {"key": condition.name, "value": value}}


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in {"true", "false"}
    return True


def _to_record(result: Mapping[str, Any]) -> RetrievalRecord | None:
    text = result["content"].get("text")
    if not text:
        return None
    location = dict(result.get("location") or {})
    kind = location.pop("type", None)
    uri = next((value for part in location.values() for value in part.values()), None)
    result_metadata = dict(
        zip(_RESULT_METADATA, (result.get("documentId") or uri, uri, kind), strict=True)
    )
    return RetrievalRecord(
        text,
        score=result.get("score") or 0.0,
        title=str(uri or "").rstrip("/").rpartition("/")[2],
        metadata={
            **{name: value for name, value in result_metadata.items() if value is not None},
            **(result.get("metadata") or {}),
        },
    )
