"""Parent and child chunks, according to recordings 1000 to 1040 and the server source."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dify_kb import ProcessRule
from dify_kb.models import UNSET, ChunkingRules, ParentMode, ProcessMode
from dify_kb.rag import ChunkError, ParentChunk, SplitterVersion, chunk_children, chunk_parents

RECORDED = "\n\n".join(
    "\n".join(f"parent {parent} line {line} about topic{parent}{line}" for line in range(3))
    for parent in range(4)
)
"""Text of recording 1000."""

RULE = ProcessRule.parent_child(max_tokens=400, child_max_tokens=120)


def change_rules(**rules: Any) -> ProcessRule:
    assert isinstance(RULE.rules, ChunkingRules)
    return attrs.evolve(RULE, rules=attrs.evolve(RULE.rules, **rules))


def test_paragraphs_are_parents_and_lines_are_children() -> None:
    parents = chunk_parents([RECORDED], RULE)

    assert len(parents) == 4
    assert parents[0].content.split("\n") == [*parents[0].children]
    assert parents[0].children[2] == "parent 0 line 2 about topic02"


def test_full_doc_mode_gives_one_parent() -> None:
    (parents,) = chunk_parents([RECORDED, "more"], change_rules(parent_mode=ParentMode.FULL_DOC))

    assert parents.content == f"{RECORDED}\nmore"
    assert len(parents.children) == 13


@pytest.mark.parametrize("rule", [ProcessRule.automatic(), ProcessRule.custom()])
def test_rule_that_is_not_hierarchical_gives_no_chunks(rule: ProcessRule) -> None:
    """The document is completed nevertheless."""
    assert chunk_parents([RECORDED], rule) == []


def test_rule_without_parent_mode_means_paragraphs_since_1_13() -> None:
    """Recordings 2091 and 2092; before, such a rule gave no chunks (server source)."""
    rule = change_rules(parent_mode=UNSET)

    assert len(chunk_parents([RECORDED], rule)) == 4
    assert chunk_parents([RECORDED], rule, SplitterVersion(assumes_paragraphs=False)) == []


def test_children_require_a_subchunk_segmentation() -> None:
    with pytest.raises(ChunkError, match=r"^No subchunk segmentation found in rules\.$"):
        chunk_parents([RECORDED], change_rules(subchunk_segmentation=UNSET))
    with pytest.raises(ChunkError, match="No subchunk"):
        chunk_children("a", ProcessRule(mode=ProcessMode.AUTOMATIC))


def test_invalid_lengths_of_parents_and_children_are_an_error() -> None:
    assert isinstance(RULE.rules, ChunkingRules)
    short = attrs.evolve(RULE.rules.segmentation, max_tokens=49)

    for rule in (change_rules(segmentation=short), change_rules(subchunk_segmentation=short)):
        with pytest.raises(ChunkError, match="between 50 and 4000"):
            chunk_parents([RECORDED], rule)


def test_leading_full_stop_of_a_child_is_removed() -> None:
    assert chunk_parents([". one\n\n \n\n.\n\ntwo"], RULE) == [
        ParentChunk("one", ["one"]),
        ParentChunk("two", ["two"]),
    ]


def test_empty_document_has_no_parents() -> None:
    assert chunk_parents([" \n"], RULE) == []
    assert chunk_parents([], change_rules(parent_mode=ParentMode.FULL_DOC)) == []


@given(st.lists(st.text(max_size=400), max_size=3))
def test_no_chunk_is_empty_and_children_are_within_the_limit(texts: list[str]) -> None:
    for parent in chunk_parents(texts, RULE):
        assert parent.content
        assert all(child and len(child) <= 120 for child in parent.children)
