"""Rules for cleaning documents and splitting them into chunks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from dify_kb.argument_checks import check_arguments
from dify_kb.errors import ConfigError

from ._base import UNSET, OpenEnum, Unset

MIN_CHUNK_LENGTH, MAX_CHUNK_LENGTH = 50, 4000
"""Limits in characters. The server accepts other values, but indexing fails (recordings 148 to
151)."""


class ProcessMode(OpenEnum):
    """The kind of a process rule."""

    AUTOMATIC = "automatic"
    CUSTOM = "custom"
    HIERARCHICAL = "hierarchical"


class ParentMode(OpenEnum):
    """The parent of child chunks: the whole document, or a paragraph."""

    FULL_DOC = "full-doc"
    PARAGRAPH = "paragraph"


@frozen(kw_only=True)
class PreProcessingRule:
    """A cleaning step: `remove_extra_spaces` or `remove_urls_emails`."""

    id: str
    enabled: bool


@frozen(kw_only=True)
class Segmentation:
    """Settings for splitting text. `max_tokens` and `chunk_overlap` count characters."""

    separator: str = "\n"
    max_tokens: int
    chunk_overlap: int = 0


@frozen(kw_only=True)
class ChunkingRules:
    """The rules of a custom or hierarchical process rule."""

    pre_processing_rules: Sequence[PreProcessingRule]
    segmentation: Segmentation
    parent_mode: ParentMode | Unset = UNSET
    subchunk_segmentation: Segmentation | Unset = UNSET


@check_arguments
@frozen(kw_only=True)
class ProcessRule:
    """A rule for cleaning and splitting documents; create it with one of the class methods.

    Checked against `ProcessRule` of api/services/entities/knowledge_entities @1.12.1.
    """

    mode: ProcessMode
    rules: ChunkingRules | Unset | None = UNSET

    @classmethod
    def automatic(cls) -> ProcessRule:
        """Return the server's default: 500 characters, 50 overlapping, extra spaces removed."""
        return cls(mode=ProcessMode.AUTOMATIC)

    @classmethod
    def custom(
        cls,
        *,
        max_tokens: int = 500,
        separator: str = "\n",
        chunk_overlap: int = 50,
        remove_extra_spaces: bool = True,
        remove_urls_emails: bool = False,
    ) -> ProcessRule:
        """Return a rule that splits at `separator`.

        Args:
            max_tokens: maximum length of a chunk in characters, 50 to 4000.
            chunk_overlap: overlap between chunks in characters.

        Raises:
            ConfigError: a length with which the server would fail to index.
        """
        segmentation = _build_segmentation(max_tokens, separator, chunk_overlap, "")
        steps = _build_cleaning_rules(remove_extra_spaces, remove_urls_emails)
        return cls(
            mode=ProcessMode.CUSTOM,
            rules=ChunkingRules(
                pre_processing_rules=steps,
                segmentation=segmentation,
            ),
        )

    @classmethod
    def parent_child(
        cls,
        *,
        parent_mode: ParentMode | str = ParentMode.PARAGRAPH,
        max_tokens: int = 1000,
        separator: str = "\n\n",
        child_max_tokens: int = 200,
        child_separator: str = "\n",
        remove_extra_spaces: bool = True,
        remove_urls_emails: bool = False,
    ) -> ProcessRule:
        """Return a rule that splits into parent chunks, and these into searchable child chunks.

        Only for `doc_form="hierarchical_model"` in a high-quality dataset; otherwise the document
        completes without being indexed (reference of 1.12). All lengths are in characters.

        Args:
            parent_mode: `paragraph`, or `full-doc` for the whole document as the only parent, which
                ignores `max_tokens` and `separator`.

        Raises:
            ConfigError: a length with which the server would fail to index.
        """
        mode = ParentMode(parent_mode)
        if not mode.is_known:
            raise ConfigError(
                f"Invalid parent_mode {str(mode)!r}.", hint=f"Use one of {', '.join(ParentMode)}."
            )
        return cls(
            mode=ProcessMode.HIERARCHICAL,
            rules=ChunkingRules(
                pre_processing_rules=_build_cleaning_rules(remove_extra_spaces, remove_urls_emails),
                segmentation=_build_segmentation(max_tokens, separator, 0, ""),
                parent_mode=mode,
                subchunk_segmentation=_build_segmentation(
                    child_max_tokens, child_separator, 0, "child_"
                ),
            ),
        )

    @classmethod
    def from_response(cls, rule: Mapping[str, Any]) -> ProcessRule:
        """Return a rule that the server sent, for example `DocumentDetail.document_process_rule`.

        Raises:
            ConfigError: it is not a process rule.
        """
        try:
            mode = ProcessMode(rule["mode"])
            if mode == ProcessMode.AUTOMATIC:
                return cls(mode=mode)
            rules = rule["rules"]
            children = rules.get("subchunk_segmentation")
            return cls(
                mode=mode,
                rules=ChunkingRules(
                    pre_processing_rules=[
                        PreProcessingRule(id=step["id"], enabled=step["enabled"])
                        for step in rules["pre_processing_rules"]
                    ],
                    segmentation=_read_segmentation(rules["segmentation"]),
                    parent_mode=ParentMode(rules["parent_mode"])
                    if rules.get("parent_mode")
                    else UNSET,
                    subchunk_segmentation=_read_segmentation(children) if children else UNSET,
                ),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(
                f"Not a process rule: {rule!r}.", hint="Pass a rule as the server returns it."
            ) from error


def _read_segmentation(segmentation: Mapping[str, Any]) -> Segmentation:
    return Segmentation(
        separator=segmentation["separator"],
        max_tokens=int(segmentation["max_tokens"]),
        chunk_overlap=int(segmentation.get("chunk_overlap") or 0),
    )


def _build_cleaning_rules(spaces: bool, addresses: bool) -> Sequence[PreProcessingRule]:  # noqa: FBT001 -- ours
    return [
        PreProcessingRule(id="remove_extra_spaces", enabled=spaces),
        PreProcessingRule(id="remove_urls_emails", enabled=addresses),
    ]


def _build_segmentation(size: int, separator: str, overlap: int, of: str) -> Segmentation:
    if not MIN_CHUNK_LENGTH <= size <= MAX_CHUNK_LENGTH:
        raise ConfigError(
            f"Invalid {of}max_tokens: {size}.",
            hint=f"Use {MIN_CHUNK_LENGTH} to {MAX_CHUNK_LENGTH}; the server fails to index others.",
        )
    if not 0 <= overlap < size:
        raise ConfigError(
            f"Invalid {of}chunk_overlap {overlap} for {of}max_tokens {size}.",
            hint=f"Use 0 to {size - 1}.",
        )
    if not separator:
        raise ConfigError(f"{of}separator is empty.", hint='Pass a separator such as "\\n\\n".')
    if not separator.isascii():
        warnings.warn(
            f"{of}separator {separator!r} is not ASCII and never matches: servers since 1.11"
            " corrupt other characters.",
            stacklevel=4,
        )
    return Segmentation(separator=separator, max_tokens=size, chunk_overlap=overlap)
