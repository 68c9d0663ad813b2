from __future__ import annotations

from typing import Any

import pytest
from emulator_calls import NOBODY, Calls, Reply, serving

from dify_kb.emulator import VERSIONS, ManualClock

BUILT_IN = ["document_name", "uploader", "upload_date", "last_update_date", "source"]

TOWNS = {
    "m0": {"town": "paris", "rank": 0, "seen": 1700000000},
    "m1": {"town": "london", "rank": 10, "seen": 1700000001},
    "m2": {"town": "tokyo", "rank": 20, "seen": 1700000002},
    "m3": {"town": "paris", "rank": 30, "seen": 1700000003},
}
"""What recordings 780 to 804 are about; m4 has nothing."""


class Base:
    """A dataset with a document m0 and the fields town, rank and seen."""

    def __init__(self, calls: Calls, dataset: str) -> None:
        self.calls = calls
        self.path = f"/datasets/{dataset}"
        self.dataset = dataset
        self.fields: dict[str, str] = {}
        self.documents: dict[str, str] = {}

    async def field(self, name: str, kind: str = "string") -> Reply:
        return await self.calls.call(
            "POST", f"{self.path}/metadata", json={"type": kind, "name": name}
        )

    async def document(self, name: str) -> None:
        created = await self.calls.write(self.dataset, name, f"a zebra of {name}")
        await self.calls.done(self.dataset, created)
        self.documents[name] = created.body["document"]["id"]

    async def assign(
        self, name: str, values: dict[str, Any], *, partial: bool | None = None
    ) -> Reply:
        operation: dict[str, Any] = {
            "document_id": self.documents.get(name, NOBODY),
            "metadata_list": [
                {"id": self.fields.get(field, NOBODY), "name": field, "value": value}
                for field, value in values.items()
            ],
        }
        if partial is not None:
            operation["partial_update"] = partial
        body = {"operation_data": [operation]}
        return await self.calls.call("POST", f"{self.path}/documents/metadata", json=body)

    async def values(self, name: str = "m0") -> Any:
        path = f"{self.path}/documents/{self.documents[name]}"
        reply = await self.calls.call("GET", path, params={"metadata": "only"})
        return reply.body["doc_metadata"]

    async def own(self, name: str = "m0") -> dict[str, Any]:
        shown = await self.values(name) or []
        return {value["name"]: value["value"] for value in shown if value["id"] != "built-in"}

    async def counts(self) -> dict[str, int]:
        reply = await self.calls.call("GET", f"{self.path}/metadata")
        return {field["name"]: field["count"] for field in reply.body["doc_metadata"]}


async def base(calls: Calls, *documents: str) -> Base:
    made = Base(calls, await calls.dataset())
    for name, kind in {"town": "string", "rank": "number", "seen": "time"}.items():
        made.fields[name] = (await made.field(name, kind)).body["id"]
    for name in documents or ["m0"]:
        await made.document(name)
    return made


async def test_a_field_is_made_once_and_not_by_a_built_in_name() -> None:
    async with serving() as calls:
        one = Base(calls, await calls.dataset())
        made = await one.field("town")
        refusals = [await one.field(name) for name in ("town", "uploader", "x" * 256)]
        bad = await one.field("x", "bool")
        empty = await one.field("")

    assert made.status == 201
    assert made.body == {"id": made.body["id"], "type": "string", "name": "town"}
    assert [(reply.status, reply.body["message"]) for reply in refusals] == [
        (400, "Metadata name already exists."),
        (400, "Metadata name already exists in Built-in fields."),
        (400, "Metadata name cannot exceed 255 characters."),
    ]
    assert bad.body["message"].startswith(
        "1 validation error for MetadataArgs\ntype\n  Input should be 'string', 'number' or 'time'"
    )
    assert empty.status == 201


@pytest.mark.parametrize("version", VERSIONS)
async def test_renaming_moves_the_values_and_an_unknown_field_is_all_null(version: str) -> None:
    async with serving(version=version) as calls:
        one = await base(calls)
        await one.assign("m0", {"town": "paris", "rank": 5})
        path = f"{one.path}/metadata/{one.fields['town']}"
        renamed = await calls.call("PATCH", path, json={"name": "city"})
        same = await calls.call("PATCH", path, json={"name": "city"})
        unknown = await calls.call("PATCH", f"{one.path}/metadata/{NOBODY}", json={"name": "z"})
        found = await calls.search(one.dataset, "zebra")

    assert renamed.body == {"id": one.fields["town"], "type": "string", "name": "city"}
    assert same.status == 400
    assert (unknown.status, unknown.body) == (200, {"id": None, "type": None, "name": None})
    (record,) = found.body["records"]
    assert record["segment"]["document"]["doc_metadata"] == {"city": "paris", "rank": 5}


async def test_deleting_a_field_deletes_its_values_and_may_be_repeated() -> None:
    async with serving() as calls:
        one = await base(calls)
        await one.assign("m0", {"town": "paris", "rank": 5})
        path = f"{one.path}/metadata/{one.fields['town']}"
        replies = [await calls.call("DELETE", path) for _ in range(2)]
        own, counts = await one.own(), await one.counts()

    assert [reply.status for reply in replies] == [204, 204]
    assert own == {"rank": 5}
    assert counts == {"rank": 1, "seen": 0}


async def test_values_are_read_back_typed_from_one_and_as_texts_from_many() -> None:
    """The built-in fields appear once anything is set."""
    clock = ManualClock()
    async with serving(clock=clock) as calls:
        one = await base(calls)
        before = await one.values()
        clock.advance(60.5)
        await one.assign("m0", {"town": "paris", "rank": 5, "seen": 1.5})
        shown = await one.values()
        listed = await calls.call("GET", f"{one.path}/documents")
        full = await calls.call("GET", one.path)

    assert before is None
    assert [value["name"] for value in shown] == ["town", "rank", "seen", *BUILT_IN]
    assert [value["value"] for value in shown] == [
        "paris", 5, 1.5, "m0", "admin", "1800000000.0", "1800000060.5", "file_upload",
    ]  # fmt: skip
    assert {value["id"] for value in shown[3:]} == {"built-in"}
    (document,) = listed.body["data"]
    assert document["doc_metadata"] == [{**value, "value": str(value["value"])} for value in shown]
    assert full.body["doc_metadata"] == [
        {"id": one.fields[name], "name": name, "type": kind}
        for name, kind in {"town": "string", "rank": "number", "seen": "time"}.items()
    ]


@pytest.mark.parametrize(
    ("version", "left"),
    [
        ("1.8.1", {"town": "lyon"}),
        ("1.12.1", {"rank": 7, "town": "lyon"}),
        ("1.16", {"rank": 7, "town": "lyon"}),
    ],
)
async def test_a_partial_update_merges_since_1_11(version: str, left: dict[str, Any]) -> None:
    async with serving(version=version) as calls:
        one = await base(calls)
        await one.assign("m0", {"town": "paris", "rank": 5})
        replaced = await one.assign("m0", {"rank": 7})
        after = await one.own()
        await one.assign("m0", {"town": "lyon"}, partial=True)
        merged = await one.own()
        await one.assign("m0", {})
        cleared = await one.values()

    assert replaced.raw == (b"200\n" if version == "1.8.1" else b'{"result":"success"}\n')
    assert after == {"rank": 7}
    assert merged == left
    assert cleared is None


@pytest.mark.parametrize(("version", "status"), [("1.4.3", 200), ("1.12.1", 200), ("1.16", 400)])
async def test_an_unknown_document_is_refused_since_1_16(version: str, status: int) -> None:
    async with serving(version=version) as calls:
        one = await base(calls)
        reply = await one.assign("nobody", {"town": "x"})

    assert reply.status == status
    if status == 400:
        assert reply.body["message"] == "Document not found."


async def test_values_of_unknown_fields_are_taken_and_not_shown() -> None:
    """Recordings 690 to 699: neither types nor ids nor names are compared."""
    async with serving() as calls:
        one = await base(calls)
        ghost = await one.assign("m0", {"ghost": "x"})
        unseen = await one.own()
        await one.assign("m0", {"rank": True, "town": None, "seen": "soon"})
        typed = await one.own()
        refused = await one.assign("m0", {"rank": [1]})
        found = await calls.search(one.dataset, "zebra")

    assert ghost.status == 200
    assert unseen == {}
    assert typed == {"rank": 1, "town": None, "seen": "soon"}
    assert refused.body["message"].startswith("3 validation errors for MetadataOperationData")
    (record,) = found.body["records"]
    assert record["segment"]["document"]["doc_metadata"] == typed


@pytest.mark.parametrize(
    ("version", "path"),
    [("1.8.1", "/datasets/metadata/built-in"), ("1.12.1", "{}/metadata/built-in")],
)
async def test_built_in_fields_have_moved(version: str, path: str) -> None:
    async with serving(version=version) as calls:
        one = Base(calls, await calls.dataset())
        reply = await calls.call("GET", path.format(one.path))

    assert [field["name"] for field in reply.body["fields"]] == BUILT_IN


async def test_built_in_values_can_be_searched_while_they_are_on() -> None:
    async with serving() as calls:
        one = await base(calls, "m0", "m1")
        switch = f"{one.path}/metadata/built-in"
        by_name = {"name": "document_name", "comparison_operator": "is", "value": "m1"}
        conditions = {"metadata_filtering_conditions": {"conditions": [by_name]}}
        off = await calls.search(one.dataset, "zebra", **conditions)
        replies = [await calls.call("POST", f"{switch}/enable") for _ in range(2)]
        replies.append(await calls.call("POST", f"{switch}/bogus"))
        await one.document("m2")
        on = await calls.search(one.dataset, "zebra", **conditions)
        new = await one.values("m2")
        shown = await calls.call("GET", one.path)
        await calls.call("POST", f"{switch}/disable")
        gone = await one.values()

    assert [reply.body for reply in replies] == [{"result": "success"}] * 3
    assert (len(off.body["records"]), len(on.body["records"])) == (0, 1)
    assert [value["name"] for value in new] == BUILT_IN
    assert shown.body["built_in_field_enabled"] is True
    assert len(shown.body["doc_metadata"]) == 3 + len(BUILT_IN)
    assert gone is None


async def test_counts_and_values_go_with_their_documents() -> None:
    async with serving() as calls:
        one = await base(calls, "m0", "m1")
        for name in ("m0", "m1"):
            await one.assign(name, {"town": "paris"})
        both = await one.counts()
        await calls.call("DELETE", f"{one.path}/documents/{one.documents['m0']}")
        left = await one.counts()

    assert (both["town"], left["town"]) == (2, 1)


@pytest.mark.parametrize(
    ("operator", "name", "value", "found"),
    [
        ("is", "town", "paris", "m0 m3"), ("is not", "town", "paris", "m1 m2"),
        ("contains", "town", "on", "m1"), ("not contains", "town", "on", "m0 m2 m3"),
        ("start with", "town", "lo", "m1"), ("end with", "town", "yo", "m2"),
        ("empty", "town", None, "m4"), ("not empty", "town", None, "m0 m1 m2 m3"),
        ("=", "rank", "10", "m1"), (">", "rank", 5, "m1 m2 m3"), ("<", "rank", 20, "m0 m1"),
        ("≥", "rank", 10, "m1 m2 m3"), ("≤", "rank", 10, "m0 m1"),
        ("before", "seen", 1700000002, "m0 m1"), ("after", "seen", 1700000002, "m3"),
        ("in", "town", ["paris", "tokyo"], "m0 m2 m3"), ("in", "town", "london, x", "m1"),
        ("not in", "town", ["paris"], "m1 m2"), ("is", "nofield", "x", ""),
        ("is", "town", None, "m0 m1 m2 m3 m4"),
    ],
)  # fmt: skip
async def test_searches_find_what_recorded_servers_found(
    operator: str, name: str, value: object, found: str
) -> None:
    async with serving() as calls:
        one = await base(calls, *TOWNS, "m4")
        for document, values in TOWNS.items():
            await one.assign(document, values)
        condition = {"name": name, "comparison_operator": operator, "value": value}
        filters = {"metadata_filtering_conditions": {"conditions": [condition]}}
        reply = await calls.search(one.dataset, "zebra", **filters)

    names = sorted(record["segment"]["document"]["name"] for record in reply.body["records"])
    assert " ".join(names) == found


@pytest.mark.parametrize(("joined", "found"), [("and", 1), ("or", 4)])
async def test_conditions_are_joined(joined: str, found: int) -> None:
    async with serving() as calls:
        one = await base(calls, *TOWNS)
        for document, values in TOWNS.items():
            await one.assign(document, values)
        conditions = [
            {"name": "town", "comparison_operator": "is", "value": "paris"},
            {"name": "rank", "comparison_operator": ">", "value": 5},
        ]
        filters = {"logical_operator": joined, "conditions": conditions}
        reply = await calls.search(one.dataset, "zebra", metadata_filtering_conditions=filters)

    assert len(reply.body["records"]) == found


@pytest.mark.parametrize(
    ("version", "operator", "status"),
    [("1.4.3", "in", 400), ("1.8.1", "in", 200), ("1.12.1", "like", 400), ("1.16", "like", 400)],
)
async def test_an_operator_that_the_version_does_not_have_is_refused(
    version: str, operator: str, status: int
) -> None:
    async with serving(version=version) as calls:
        one = await base(calls)
        condition = {"name": "town", "comparison_operator": operator, "value": ["x"]}
        filters = {"metadata_filtering_conditions": {"conditions": [condition]}}
        reply = await calls.search(one.dataset, "zebra", **filters)

    assert reply.status == status
    if status == 400:
        assert (
            "MetadataFilteringCondition\nconditions.0.comparison_operator\n"
            in (reply.body["message"])
        )
