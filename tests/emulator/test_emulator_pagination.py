"""Lists of documents and datasets: pages, keywords and statuses."""

from __future__ import annotations

from urllib.parse import quote

from emulator_client import run_emulator
from emulator_documents import list_document_names

from dify_kb.emulator import ManualClock


async def test_pages_are_clamped_and_echoed_as_measured() -> None:
    """`has_more` is computed from the requested limit (measured)."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        for number in range(105):
            await client.create_by_text(dataset, f"{number}")
        pages = {}
        for limit in (100, 105, 150, 0, -1):
            response = await client.request(
                "GET", f"/datasets/{dataset}/documents?limit={limit}&page=0"
            )
            body = response.body
            pages[limit] = (len(body["data"]), body["has_more"], body["limit"], body["page"])
        beyond = await client.request("GET", f"/datasets/{dataset}/documents?page=99")

    assert pages == {
        100: (100, True, 100, 0),
        105: (100, False, 105, 0),
        150: (100, False, 150, 0),
        0: (20, False, 0, 0),
        -1: (20, False, -1, 0),
    }
    assert beyond.body == {"data": [], "has_more": False, "limit": 20, "total": 105, "page": 99}


async def test_documents_are_listed_newest_first_and_by_keyword() -> None:
    async with run_emulator(clock=ManualClock()) as client:
        dataset = await client.create_dataset()
        for name in ("a_b", "aXb", "A_B", "100%"):
            await client.create_by_text(dataset, name)
        hits = {
            keyword: await list_document_names(client, dataset, keyword=keyword)
            for keyword in ("", "a_b", r"a\_b", "%", r"\%", "nothing")
        }

    assert hits == {
        "": ["100%", "A_B", "aXb", "a_b"],
        "a_b": ["aXb", "a_b"],
        r"a\_b": ["a_b"],
        "%": ["100%", "A_B", "aXb", "a_b"],
        r"\%": ["100%"],
        "nothing": [],
    }


async def test_an_unknown_status_lists_everything() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        await client.wait_until_indexed(dataset, await client.create_by_file(dataset, "a.txt"))
        lists = {
            status: await list_document_names(client, dataset, status=status)
            for status in ("available", "active", "ENABLED", "queuing", "completed", "bogus")
        }

    assert lists == {
        "available": ["a.txt"],
        "active": ["a.txt"],
        "ENABLED": ["a.txt"],
        "queuing": [],
        "completed": ["a.txt"],
        "bogus": ["a.txt"],
    }


async def test_dataset_keyword_matches_in_any_case() -> None:
    async with run_emulator() as client:
        await client.create_dataset("Über eins")
        await client.create_dataset("zwei")
        hits = await client.request("GET", f"/datasets?keyword={quote('üBER')}")

    assert [row["name"] for row in hits.body["data"]] == ["Über eins"]
    assert hits.body["data"][0]["retrieval_model_dict"]["search_method"] == "semantic_search"
