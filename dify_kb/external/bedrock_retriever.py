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
"""`numberOfResults` of bedrock-agent-runtime's Retrieve."""

MAX_QUERY_CHARACTERS: Final = 20_000
"""Characters of its query (botocore's service model)."""

_OPERATORS: Final[Mapping[ComparisonOperator, str]] = {
    ComparisonOperator.IS: "equals",
    ComparisonOperator.EQUAL: "equals",
    ComparisonOperator.IN: "in",
    ComparisonOperator.GREATER: "greaterThan",
    ComparisonOperator.GREATER_EQUAL: "greaterThanOrEquals",
    ComparisonOperator.LESS: "lessThan",
    ComparisonOperator.LESS_EQUAL: "lessThanOrEquals",
}
"""What Bedrock filters by as Dify does. It lets through what lacks the field by notEquals and
notIn, and only some of its stores know startsWith and stringContains."""


_RESULT_METADATA: Final = ("document_id", "uri", "type")
"""Metadata that a result gets here, and Bedrock does not know."""


@define
class BedrockRetriever:
    """Serves an Amazon Bedrock Knowledge Base. One call of Retrieve for each question.

    Needs boto3 (`pip install 'dify-kb[bedrock]'`) and credentials where boto3 looks for them, with
    `bedrock:Retrieve` on the knowledge base. Conditions that Bedrock has as well go with the call
    if all must be met; all of them are applied to the attributes of the results, dates included.
    Metadata of a record are the attributes of its source, and `document_id`, `uri` and `type` of
    its place where they have no such names. Results without a text, such as images, are left out.

    Args:
        knowledge_base_id: ten letters and digits, or an ARN.
        client: a boto3 client of `bedrock-agent-runtime`; None makes one. Its calls block, and
            run in threads.
        region_name: of the client that is made; else that of the environment.
        search_type: `HYBRID` needs a store that can: OpenSearch, Aurora, MongoDB. None leaves the
            choice to Bedrock.
        reranking_model_arn: a model that puts what was found into another order.

    Raises:
        ConfigError: boto3 is not installed, or knows no region.
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
        """Call Retrieve; what it raises, and how often it tries, is boto3's."""
        parameters = self._build_parameters(query)
        reply = await anyio.to_thread.run_sync(
            lambda: self.client.retrieve(**parameters), abandon_on_cancel=True
        )
        records = (_to_record(result) for result in reply["retrievalResults"])
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
            f"There is no client of Amazon Bedrock: {error}",
            hint="Pass region_name, or set AWS_REGION.",
        ) from error


def _to_bedrock_filter(metadata_filter: MetadataFilter | None) -> dict[str, Any] | None:
    """Take what Bedrock can look at beforehand; with `or` that would have to be all."""
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
    """Translate a condition whose value is of a kind that both compare alike."""
    name = _OPERATORS.get(condition.comparison_operator)
    value = condition.value
    if name is None or value is None or condition.name in _RESULT_METADATA:
        return None
    if name == "in":
        if not isinstance(value, list | tuple) or not value:
            return None
        # A number that is stored is one of texts for Dify, and none of them for Bedrock.
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
