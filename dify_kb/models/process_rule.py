"""How a document is cleaned and cut into chunks."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from dify_kb.errors import ConfigError

from ._base import UNSET, OpenEnum, Unset

MIN_CHUNK, MAX_CHUNK = 50, 4000
"""Characters. The server accepts other values and then fails while indexing (findings.md §5.7)."""


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
class Rules:
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
    rules: Rules | Unset | None = UNSET

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
        if not MIN_CHUNK <= max_tokens <= MAX_CHUNK:
            raise ConfigError(
                f"max_tokens is {max_tokens}; the server indexes chunks of"
                f" {MIN_CHUNK} to {MAX_CHUNK} characters.",
                hint="Choose a length within that range.",
            )
        if not 0 <= chunk_overlap < max_tokens:
            raise ConfigError(
                f"chunk_overlap is {chunk_overlap}, max_tokens is {max_tokens}.",
                hint="The overlap must be at least 0 and smaller than the chunk.",
            )
        if not separator:
            raise ConfigError("separator is empty.", hint='Pass a text to cut at, e.g. "\\n\\n".')
        steps = {
            "remove_extra_spaces": remove_extra_spaces,
            "remove_urls_emails": remove_urls_emails,
        }
        return cls(
            mode=ProcessMode.CUSTOM,
            rules=Rules(
                pre_processing_rules=[
                    PreProcessingRule(id=step, enabled=enabled) for step, enabled in steps.items()
                ],
                segmentation=Segmentation(
                    separator=separator, max_tokens=max_tokens, chunk_overlap=chunk_overlap
                ),
            ),
        )
