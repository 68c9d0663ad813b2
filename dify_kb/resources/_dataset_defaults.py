"""Complete and check arguments by a `Dataset`, for what the server requires. An id has none."""

from __future__ import annotations

from typing import Any, get_args

from attrs import evolve

from dify_kb.errors import ConfigError
from dify_kb.models import (
    UNSET,
    Condition,
    Dataset,
    DocForm,
    DocFormName,
    IndexingTechnique,
    MetadataFilter,
    ModelRef,
    ProcessRule,
    RetrievalModel,
    SearchMethod,
    SearchMethodName,
    TechniqueName,
    Unset,
    validate_retrieval_model,
)


def resolve_technique(
    dataset: Dataset | str, value: IndexingTechnique | TechniqueName | Unset
) -> IndexingTechnique | Unset:
    """Return the technique, by default the dataset's: a text needs one (recording 125)."""
    if value:
        return IndexingTechnique(value)
    return (isinstance(dataset, Dataset) and dataset.indexing_technique) or UNSET


def resolve_doc_form(
    dataset: Dataset | str, value: DocForm | DocFormName | Unset
) -> DocForm | Unset:
    """Return the document form, by default the dataset's."""
    if value:
        return DocForm(value)
    return (isinstance(dataset, Dataset) and dataset.doc_form) or UNSET


def resolve_process_rule(dataset: Dataset | str, value: ProcessRule | Unset) -> ProcessRule | Unset:
    """Return the chunking rule. The first document needs one; later ones use the dataset's."""
    if value or not isinstance(dataset, Dataset) or dataset.document_count != 0:
        return value
    return ProcessRule.automatic()


def resolve_process_rule_for_text(
    dataset: Dataset | str, value: ProcessRule | Unset
) -> ProcessRule | Unset:
    """Return the chunking rule of a text. Up to 1.8 it has no default (recording 126).

    Raises:
        ConfigError: the server needs a rule.
    """
    process_rule = resolve_process_rule(dataset, value)
    # Datasets have `enable_api` on 1.12.1, but not up to 1.8.1 (recordings).
    if not process_rule and isinstance(dataset, Dataset) and dataset.enable_api is None:
        raise ConfigError(
            f"process_rule is missing, and dataset {dataset.name!r} already has documents.",
            hint="Pass process_rule: servers before 1.11 have no default rule for texts.",
        )
    return process_rule


def resolve_retrieval_model(
    dataset: Dataset | str, model: RetrievalModel | Unset
) -> RetrievalModel | Unset:
    """Return the settings of a search, by default keyword search for an economy dataset.

    Its own setting fails (recording 750), and is `keyword_search` only in responses since 1.12.

    Raises:
        ConfigError: the settings are invalid, or an economy dataset does not support the method.
    """
    if model:
        if model.search_method is not SearchMethod.KEYWORD and _is_economy(dataset):
            raise _unsupported_method(dataset, str(model.search_method))
        return validate_retrieval_model(model)
    if isinstance(dataset, str) or _is_high_quality(dataset):
        return UNSET
    return RetrievalModel.keyword()


def build_retrieval_model(
    dataset: Dataset | str,
    method: SearchMethodName | None,
    top_k: int | None,
    score_threshold: float | None,
    metadata_filter: MetadataFilter | Condition | None,
) -> RetrievalModel:
    """Return the settings of a search from single options; others are those of the dataset.

    Raises:
        ConfigError: an option is invalid, or the dataset does not support the method; the server
            would fail or find nothing.
    """
    if (method == "keyword" and _is_high_quality(dataset)) or (
        method not in {None, "keyword"} and _is_economy(dataset)
    ):
        raise _unsupported_method(dataset, str(method))
    model = _choose_settings(dataset, method)
    if score_threshold is not None and model.search_method is SearchMethod.KEYWORD:
        raise ConfigError(
            "A score threshold cannot be used with keyword search, which has no scores.",
            hint="Remove the score threshold.",
        )
    changes: dict[str, Any] = {}
    if top_k is not None:
        changes["top_k"] = top_k
    if score_threshold is not None:
        changes |= {"score_threshold_enabled": True, "score_threshold": score_threshold}
    if metadata_filter is not None:
        changes["metadata_filtering_conditions"] = MetadataFilter.from_condition(metadata_filter)
    return validate_retrieval_model(evolve(model, **changes))


def _choose_settings(dataset: Dataset | str, method: SearchMethodName | None) -> RetrievalModel:
    match method:
        case "semantic":
            return RetrievalModel.semantic()
        case "full_text":
            return RetrievalModel.full_text()
        case "keyword":
            return RetrievalModel.keyword()
        case "hybrid":
            return RetrievalModel.hybrid_weighted(embedding=_embedding_model(dataset))
        case None:
            return _read_settings(dataset)
        case _:
            raise ConfigError(
                f"Unknown search method {method!r}.",
                hint=f"Use {', '.join(get_args(SearchMethodName))}.",
            )


def _read_settings(dataset: Dataset | str) -> RetrievalModel:
    """Return the settings stored with a dataset; those of an economy dataset are not usable."""
    if isinstance(dataset, str):
        raise ConfigError(
            "The search method is missing: a dataset id does not tell the dataset's own.",
            hint="Pass method=…, or a Dataset from datasets.get or datasets.find.",
        )
    if not _is_high_quality(dataset):
        return RetrievalModel.keyword()
    stored = dataset.retrieval_model_dict
    model = stored.to_retrieval_model() if stored else None
    if model is None or model.search_method is SearchMethod.KEYWORD:
        return RetrievalModel.semantic()
    threshold = stored.score_threshold if stored and stored.score_threshold_enabled else None
    return evolve(
        model,
        top_k=(stored and stored.top_k) or model.top_k,
        score_threshold_enabled=threshold is not None,
        score_threshold=UNSET if threshold is None else threshold,
    )


def _embedding_model(dataset: Dataset | str) -> ModelRef:
    if isinstance(dataset, str) or not dataset.embedding_model:
        raise ConfigError(
            "Hybrid search needs the dataset's embedding model, which is not known.",
            hint="Pass a Dataset, or retrieval_model=RetrievalModel.hybrid_weighted(embedding=…).",
        )
    return ModelRef(provider=dataset.embedding_model_provider or "", model=dataset.embedding_model)


def check_internal(dataset: Dataset | str) -> None:
    """Check that the service API can search a dataset.

    Raises:
        ConfigError: it is external. The service API never asks its External Knowledge API: it
            finds nothing, or fails with an SQL error (measured on 1.14.2).
    """
    if is_external(dataset):
        name = dataset.name if isinstance(dataset, Dataset) else dataset
        raise ConfigError(
            f"Dataset {name!r} is external, and the service API does not search external datasets.",
            hint="Send the query to its External Knowledge API, or use the dataset in an app.",
        )


def is_external(dataset: Dataset | str) -> bool:
    """Return whether a dataset is known to be external."""
    return isinstance(dataset, Dataset) and dataset.provider == "external"


def _is_economy(dataset: Dataset | str) -> bool:
    return isinstance(dataset, Dataset) and dataset.indexing_technique is IndexingTechnique.ECONOMY


def _is_high_quality(dataset: Dataset | str) -> bool:
    return (
        isinstance(dataset, Dataset)
        and dataset.indexing_technique is IndexingTechnique.HIGH_QUALITY
    )


def _unsupported_method(dataset: Dataset | str, method: str) -> ConfigError:
    name = dataset.name if isinstance(dataset, Dataset) else dataset
    technique = "economy" if _is_economy(dataset) else "high_quality"
    methods = "keyword" if _is_economy(dataset) else "semantic, full_text or hybrid"
    return ConfigError(
        f"Dataset {name!r} is {technique} and does not support the search method {method!r}.",
        hint=f"Use the method {methods}.",
    )
