"""How a document is cleaned and cut into chunks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from attrs import frozen

from dify_kb.errors import ConfigError

from ._base import UNSET, OpenEnum, Unset

MIN_CHUNK_LENGTH, MAX_CHUNK_LENGTH = 50, 4000
"""Characters. The server takes other values and then fails to index (recordings 148 to 151)."""


class ProcessMode(OpenEnum):
    """Who decides the rules."""

    AUTOMATIC = "automatic"
    CUSTOM = "custom"
    HIERARCHICAL = "hierarchical"


class ParentMode(OpenEnum):
    """What the parent of a child chunk is."""

    FULL_DOC = "full-doc"
    PARAGRAPH = "paragraph"


@frozen(kw_only=True)
class PreProcessingRule:
    """A cleaning step: `remove_extra_spaces` or `remove_urls_emails`."""

    id: str
    enabled: bool


@frozen(kw_only=True)
class Segmentation:
    """Where to cut. `max_tokens` and `chunk_overlap` count characters, whatever their names say."""

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


@frozen(kw_only=True)
class ProcessRule:
    """How the server cleans and cuts documents; build one with `automatic` or `custom`.

    Checked against `ProcessRule` of api/services/entities/knowledge_entities @1.12.1.
    """

    mode: ProcessMode
    rules: ChunkingRules | Unset | None = UNSET

    @classmethod
    def automatic(cls) -> ProcessRule:
        """Let the server choose: lines joined to 500 characters, 50 overlapping, spaces tidied."""
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
        """Cut at `separator` into chunks of at most `max_tokens` characters (50 to 4000).

        Raises:
            ConfigError: a length that the server would accept and then fail to index.
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
        """Cut into parents, and these into children by which they are found.

        For documents of `doc_form="hierarchical_model"` in a high-quality base; elsewhere nothing
        is indexed although the document completes (reference of 1.12). With `full-doc` the whole
        document is the parent, and `max_tokens` and `separator` mean nothing.

        Raises:
            ConfigError: a length that the server would accept and then fail to index.
        """
        mode = ParentMode(parent_mode)
        if not mode.is_known:
            raise ConfigError(
                f"parent_mode is {str(mode)!r}.", hint=f"It can be {', '.join(ParentMode)}."
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


def _build_cleaning_rules(spaces: bool, addresses: bool) -> Sequence[PreProcessingRule]:  # noqa: FBT001 -- ours
    return [
        PreProcessingRule(id="remove_extra_spaces", enabled=spaces),
        PreProcessingRule(id="remove_urls_emails", enabled=addresses),
    ]


def _build_segmentation(size: int, separator: str, overlap: int, of: str) -> Segmentation:
    if not MIN_CHUNK_LENGTH <= size <= MAX_CHUNK_LENGTH:
        raise ConfigError(
            f"{of}max_tokens is {size}; the server indexes chunks of"
            f" {MIN_CHUNK_LENGTH} to {MAX_CHUNK_LENGTH} characters.",
            hint="Choose a length within that range.",
        )
    if not 0 <= overlap < size:
        raise ConfigError(
            f"{of}chunk_overlap is {overlap}, {of}max_tokens is {size}.",
            hint="The overlap must be at least 0 and smaller than the chunk.",
        )
    if not separator:
        raise ConfigError(f"{of}separator is empty.", hint='Pass a text to cut at, e.g. "\\n\\n".')
    if not separator.isascii():
        warnings.warn(
            f"{of}separator is {separator!r}: servers since 1.11 garble what is not ASCII, and it"
            " never matches there.",
            stacklevel=3,
        )
    return Segmentation(separator=separator, max_tokens=size, chunk_overlap=overlap)
