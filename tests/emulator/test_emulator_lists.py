"""Lists of documents and datasets: pages, keywords, statuses."""

from __future__ import annotations

from urllib.parse import quote

from emulator_calls import serving
from emulator_listed import names

from dify_kb.emulator import ManualClock


async def test_pages_are_clamped_and_echoed_as_measured() -> None:
    """`has_more` compares with what was asked for (measured)."""
    async with serving() as calls:
        one = await calls.dataset()
        for number in range(105):
            await calls.write(one, f"{number}")
        pages = {}
        for limit in (100, 105, 150, 0, -1):
            reply = await calls.call("GET", f"/datasets/{one}/documents?limit={limit}&page=0")
            body = reply.body
            pages[limit] = (len(body["data"]), body["has_more"], body["limit"], body["page"])
        beyond = await calls.call("GET", f"/datasets/{one}/documents?page=99")

    assert pages == {
        100: (100, True, 100, 0),
        105: (100, False, 105, 0),
        150: (100, False, 150, 0),
        0: (20, False, 0, 0),
        -1: (20, False, -1, 0),
    }
    assert beyond.body == {"data": [], "has_more": False, "limit": 20, "total": 105, "page": 99}


async def test_documents_are_listed_newest_first_and_by_keyword() -> None:
    async with serving(clock=ManualClock()) as calls:
        one = await calls.dataset()
        for name in ("a_b", "aXb", "A_B", "100%"):
            await calls.write(one, name)
        found = {
            keyword: await names(calls, one, keyword=keyword)
            for keyword in ("", "a_b", r"a\_b", "%", r"\%", "nothing")
        }

    assert found == {
        "": ["100%", "A_B", "aXb", "a_b"],
        "a_b": ["aXb", "a_b"],
        r"a\_b": ["a_b"],
        "%": ["100%", "A_B", "aXb", "a_b"],
        r"\%": ["100%"],
        "nothing": [],
    }


async def test_an_unknown_status_lists_everything() -> None:
    async with serving() as calls:
        one = await calls.dataset()
        await calls.done(one, await calls.upload(one, "a.txt"))
        lists = {
            status: await names(calls, one, status=status)
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


async def test_datasets_are_found_in_any_case() -> None:
    async with serving() as calls:
        await calls.dataset("Über eins")
        await calls.dataset("zwei")
        found = await calls.call("GET", f"/datasets?keyword={quote('üBER')}")

    assert [row["name"] for row in found.body["data"]] == ["Über eins"]
    assert found.body["data"][0]["retrieval_model_dict"]["search_method"] == "semantic_search"
