"""Typed words and the metadata values of documents."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest

from dify_kb import resources
from dify_kb.models import (
    UNSET,
    DisplayStatus,
    DisplayStatusName,
    DocForm,
    DocFormName,
    Document,
    DocumentDetail,
    IndexingTechnique,
    MetadataType,
    MetadataTypeName,
    Permission,
    PermissionName,
    SegmentStatus,
    SegmentStatusName,
    TechniqueName,
    Unset,
)
from dify_kb.wire import codec

ROW = {"id": "d1", "name": "a.txt", "indexing_status": "completed", "enabled": True}


@pytest.mark.parametrize(
    ("words", "enum"),
    [
        (TechniqueName, IndexingTechnique),
        (PermissionName, Permission),
        (DocFormName, DocForm),
        (DisplayStatusName, DisplayStatus),
        (MetadataTypeName, MetadataType),
        (SegmentStatusName, SegmentStatus),
    ],
)
def test_the_words_for_checkers_are_those_of_the_server(words: Any, enum: Any) -> None:
    """A type checker reports `indexing_technique="econmy"` only if it knows all valid words."""
    assert set(get_args(words)) == {str(word) for word in enum}


def test_signatures_show_unset_by_its_name() -> None:
    """Editors showed `Literal[_Unset.UNSET]` for every optional argument."""
    signature = inspect.signature(resources.Datasets.create)

    assert "description: 'str | Unset' = UNSET" in str(signature)
    assert isinstance(UNSET, Unset)
    assert not UNSET
    assert repr(UNSET) == "UNSET"


ENTRIES = [
    {"id": "m1", "name": "team", "type": "string", "value": "20"},
    {"id": "m2", "name": "year", "type": "number", "value": "2024"},
    {"id": "m3", "name": "ratio", "type": "number", "value": 0.5},
    {"id": "m4", "name": "date", "type": "time", "value": "1795247651.0"},
    {"id": "m5", "name": "none", "type": "number", "value": None},
    {"id": "m6", "name": "wrong", "type": "number", "value": "many"},
    {"id": "built-in", "name": "uploader", "type": "string", "value": "admin"},
    {"name": "without an id"},
]


def test_metadata_values_of_a_row_have_the_types_of_their_fields() -> None:
    """Lists of 1.12.1 and older have all values as text; `doc_metadata` keeps them as sent."""
    row = codec.decode(Document, {**ROW, "doc_metadata": ENTRIES})

    assert row.metadata_values == {
        "team": "20",
        "year": 2024,
        "ratio": 0.5,
        "date": 1795247651.0,
        "none": None,
        "wrong": "many",
        "uploader": "admin",
    }
    assert row.doc_metadata == tuple(ENTRIES)


def test_metadata_values_of_a_detail_are_those_that_were_sent() -> None:
    """Details have JSON types in all versions; the server does not check them."""
    detail = codec.decode(DocumentDetail, {"id": "d1", "doc_metadata": ENTRIES})

    assert detail.metadata_values["year"] == "2024"


@pytest.mark.parametrize(
    ("fields", "archived"),
    [
        ({"archived": True}, True),
        ({"archived": False, "display_status": "archived"}, False),
        ({"archived": None, "display_status": "archived"}, True),
        ({"display_status": "available"}, False),
        ({}, False),
    ],
)
def test_a_missing_archived_is_read_from_the_display_status(
    fields: dict[str, object],
    archived: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    """`load` must not replace the content of an archived document."""
    assert codec.decode(Document, {**ROW, **fields}).is_archived is archived
