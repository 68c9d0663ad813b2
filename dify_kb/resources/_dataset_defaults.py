"""Default arguments from a `Dataset`, for fields that the server requires. An id has none."""

from __future__ import annotations

from dify_kb.errors import ConfigError
from dify_kb.models import (
    UNSET,
    Dataset,
    DocForm,
    IndexingTechnique,
    ProcessRule,
    RetrievalModel,
    Unset,
)


def resolve_technique(
    dataset: Dataset | str, value: IndexingTechnique | str | Unset
) -> IndexingTechnique | Unset:
    """Return the technique, by default the dataset's: a text needs one (recording 125)."""
    if value:
        return IndexingTechnique(value)
    return (isinstance(dataset, Dataset) and dataset.indexing_technique) or UNSET


def resolve_doc_form(dataset: Dataset | str, value: DocForm | str | Unset) -> DocForm | Unset:
    """Return the document form, by default the dataset's."""
    if value:
        return DocForm(value)
    return (isinstance(dataset, Dataset) and dataset.doc_form) or UNSET


def resolve_process_rule(dataset: Dataset | str, value: ProcessRule | Unset) -> ProcessRule | Unset:
    """Return the chunking rule. The first document needs one; later ones use the dataset's."""
    if value or not isinstance(dataset, Dataset) or dataset.document_count:
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


def resolve_retrieval_model(dataset: Dataset) -> RetrievalModel | Unset:
    """Return keyword search for an economy dataset, whose own setting fails (recording 750)."""
    if dataset.indexing_technique is IndexingTechnique.HIGH_QUALITY:
        return UNSET
    return RetrievalModel.keyword()
