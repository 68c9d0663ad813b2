"""Chunking rules, including those that the server accepts but fails to index with."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from dify_kb import ConfigError
from dify_kb.models import ParentMode, ProcessMode, ProcessRule
from dify_kb.wire import codec


def test_parents_and_children_are_cut_by_rules_of_their_own() -> None:
    """As in recording 1001, `subchunk_segmentation` is next to `segmentation`."""
    rule = ProcessRule.parent_child(max_tokens=800, child_max_tokens=100, remove_urls_emails=True)

    assert codec.encode(rule) == {
        "mode": "hierarchical",
        "rules": {
            "pre_processing_rules": [
                {"id": "remove_extra_spaces", "enabled": True},
                {"id": "remove_urls_emails", "enabled": True},
            ],
            "segmentation": {"separator": "\n\n", "max_tokens": 800, "chunk_overlap": 0},
            "parent_mode": "paragraph",
            "subchunk_segmentation": {"separator": "\n", "max_tokens": 100, "chunk_overlap": 0},
        },
    }


def test_a_parent_may_be_the_whole_document() -> None:
    encoded: Any = codec.encode(ProcessRule.parent_child(parent_mode="full-doc"))

    assert encoded["rules"]["parent_mode"] == "full-doc"
    assert ProcessRule.parent_child(parent_mode=ParentMode.FULL_DOC).mode is (
        ProcessMode.HIERARCHICAL
    )


def test_a_parent_that_the_server_does_not_know_is_refused() -> None:
    """With `full_doc` (underscore), the server indexes nothing but reports `completed`."""
    with pytest.raises(ConfigError, match="Invalid parent_mode 'full_doc'") as raised:
        ProcessRule.parent_child(parent_mode="full_doc")

    assert raised.value.hint == "Use one of full-doc, paragraph."


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_tokens": 49}, "Invalid max_tokens: 49"),
        ({"max_tokens": 4001}, "Invalid max_tokens: 4001"),
        ({"child_max_tokens": 49}, "Invalid child_max_tokens: 49"),
        ({"child_max_tokens": 4001}, "Invalid child_max_tokens: 4001"),
        ({"separator": ""}, "separator is empty"),
        ({"child_separator": ""}, "child_separator is empty"),
    ],
)
def test_a_length_that_would_fail_while_indexing_is_refused_by_name(
    options: Any, named: str
) -> None:
    """The server accepts the length with 200 and reports an error minutes later (measured)."""
    with pytest.raises(ConfigError) as raised:
        ProcessRule.parent_child(**options)

    assert raised.value.summary.startswith(named)


@pytest.mark.parametrize("size", [50, 4000])
def test_the_shortest_and_longest_chunk_lengths_are_accepted(size: int) -> None:
    encoded: Any = codec.encode(ProcessRule.parent_child(max_tokens=size, child_max_tokens=size))

    assert encoded["rules"]["segmentation"]["max_tokens"] == size
    assert encoded["rules"]["subchunk_segmentation"]["max_tokens"] == size
    assert ProcessRule.custom(max_tokens=size, chunk_overlap=0).rules


@pytest.mark.parametrize("parent_mode", list(ParentMode))
def test_a_parent_child_rule_round_trips(parent_mode: ParentMode) -> None:
    """The emulator decodes requests with the same models."""
    rule = ProcessRule.parent_child(parent_mode=parent_mode)

    assert codec.encode(codec.decode(ProcessRule, codec.encode(rule))) == codec.encode(rule)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: ProcessRule.custom(separator="。"), "separator"),
        (lambda: ProcessRule.parent_child(separator="。"), "separator"),
        (lambda: ProcessRule.parent_child(child_separator="。"), "child_separator"),
    ],
)
def test_a_separator_that_never_matches_warns_where_it_was_written(build: Any, named: str) -> None:
    """Servers since 1.11 corrupt the separator; the warning must point at the caller's line."""
    with pytest.warns(UserWarning, match=f"^{named} '。' is not ASCII") as caught:
        build()

    assert caught[0].filename == __file__


def test_an_ascii_separator_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        rule = ProcessRule.custom(separator="\n---\n")

    assert rule.rules
