"""What a `Dataset` fills in that the server insists on; an id adds nothing."""

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
    """Tell the technique: that of the dataset, which texts do not take by themselves (case 125)."""
    if value:
        return IndexingTechnique(value)
    return (isinstance(dataset, Dataset) and dataset.indexing_technique) or UNSET


def resolve_doc_form(dataset: Dataset | str, value: DocForm | str | Unset) -> DocForm | Unset:
    """Tell the form of the chunks, of which a dataset has one."""
    if value:
        return DocForm(value)
    return (isinstance(dataset, Dataset) and dataset.doc_form) or UNSET


def resolve_process_rule(dataset: Dataset | str, value: ProcessRule | Unset) -> ProcessRule | Unset:
    """A first document needs a rule; later ones take that of the dataset."""
    if value or not isinstance(dataset, Dataset) or dataset.document_count:
        return value
    return ProcessRule.automatic()


def resolve_process_rule_for_text(
    dataset: Dataset | str, value: ProcessRule | Unset
) -> ProcessRule | Unset:
    """Up to 1.8 a text never takes the rule of the dataset (recording 126).

    Raises:
        ConfigError: there has to be one, and only the caller knows it.
    """
    process_rule = resolve_process_rule(dataset, value)
    # Recordings of 1.12.1 tell of every dataset whether its API is on, those up to 1.8.1 of none.
    if not process_rule and isinstance(dataset, Dataset) and dataset.enable_api is None:
        raise ConfigError(
            f"process_rule is missing, and {dataset.name!r} has documents already.",
            hint="Servers before 1.11 do not apply its rule to a text: pass the rule.",
        )
    return process_rule


def resolve_retrieval_model(dataset: Dataset) -> RetrievalModel | Unset:
    """An economy base stores semantic search all the same, and then refuses it (recording 750)."""
    if dataset.indexing_technique is IndexingTechnique.HIGH_QUALITY:
        return UNSET
    return RetrievalModel.keyword()
