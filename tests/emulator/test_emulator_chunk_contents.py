"""Contents of chunks: what each version strips, cleans, drops, splits and counts.

All of this was measured on 1.4.3, 1.12.1 and 1.14.2.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from emulator_client import EmulatorClient, run_emulator

from dify_kb.emulator import VERSIONS, Settings

every_version = pytest.mark.parametrize("version", VERSIONS)
measured = pytest.mark.parametrize("version", ["1.4.3", "1.12.1", "1.14.2", "1.16"])

NEWEST = frozenset({"1.14.2", "1.16"})
NO_DEADLOCK = Settings(models=True, update_hangs=False)

STRIPPED = (
    "\"#$%&'()*+,./:;<=>?@^_`~\u2000\u2010\u2019\u2025\u2027\u202f\u206f\u2e00\u2e7f\u3000\u3001"
    "\u300c\u300f\u3012\u303f"
)
STRIPPED_TOO = {"1.4.3": "!\u2026\u3010\u3011", "1.12.1": "[]\u3011", "1.14.2": "", "1.16": ""}
KEPT = {
    "1.4.3": "-[]|{}\\",
    "1.12.1": "!-|{}\\\u2026\u3010",
    "1.14.2": "!-[]|{}\\\u2026\u3010\u3011",
    "1.16": "!-[]|{}\\\u2026\u3010\u3011",
}


def build_rule(separator: str = "###", max_tokens: int = 4000, **ids: bool) -> dict[str, Any]:
    steps = [{"id": name, "enabled": enabled} for name, enabled in ids.items()]
    segmentation = {"separator": separator, "max_tokens": max_tokens}
    return {
        "mode": "custom",
        "rules": {"pre_processing_rules": steps, "segmentation": segmentation},
    }


async def index_text(
    client: EmulatorClient, text: str, *, dataset: str = "", **fields: Any
) -> tuple[str, Any]:
    """Create and index a document; return the path of its segments and its final status."""
    fields = {"indexing_technique": "economy", "process_rule": build_rule()} | fields
    if not dataset:
        dataset = await client.create_dataset(indexing_technique=fields["indexing_technique"])
    created = await client.create_by_text(dataset, "a.txt", text, **fields)
    entry = await client.wait_until_indexed(dataset, created)
    return f"/datasets/{dataset}/documents/{created.body['document']['id']}/segments", entry


async def list_segments(client: EmulatorClient, path: str) -> Any:
    return (await client.request("GET", path, params={"limit": "100"})).body["data"]


async def split(client: EmulatorClient, text: str, **fields: Any) -> list[str]:
    path, _ = await index_text(client, text, **fields)
    return [segment["content"] for segment in await list_segments(client, path)]


@measured
async def test_leading_symbols_are_stripped_by_version(version: str) -> None:
    stripped, kept = STRIPPED + STRIPPED_TOO[version], KEPT[version]
    async with run_emulator(version=version) as client:
        contents = await split(client, "###".join(f"{symbol}word" for symbol in stripped + kept))

    assert contents == [*["word"] * len(stripped), *(f"{symbol}word" for symbol in kept)]


@measured
async def test_chunk_of_symbols_alone_is_dropped(version: str) -> None:
    async with run_emulator(version=version) as client:
        contents = await split(client, "...###   ###\u200b###fine###\u3011###!?")

    left = {"1.4.3": ["fine"], "1.12.1": ["fine", "!?"]}
    assert contents == left.get(version, ["fine", "\u3011", "!?"])


@every_version
async def test_markdown_link_at_the_start_is_kept(version: str) -> None:
    async with run_emulator(version=version) as client:
        assert await split(client, "[a](http://x.y) b") == ["[a](http://x.y) b"]


@every_version
async def test_texts_are_cleaned_whatever_the_rule(version: str) -> None:
    """Three letters are mistaken for the bytes of U+FFFE, and deleted."""
    text = "naïve ¿Qué? 3¾ a<|b|>c x\x00\x01\x08\x0b\x0c\x0e\x1f\x7fy \ufffez\r\nq\rw"
    async with run_emulator(version=version) as client:
        assert await split(client, text) == ["nave Qué? 3 a<b>c xy z\nq\nw"]


@every_version
async def test_other_characters_are_kept(version: str) -> None:
    texts = [
        "http://a.b/c?d=e", "me@x.org", "a\tb", "a  b", "x\n\n\n\ny", "👨\u200d👩\u200d👧", "漢字",
        "שלום", "a\u200bb", "a\ufeffb", "a\x85b", "a\u2028b", "a\ufffdb", "e\u0301", "x", "x",
        "- x", "1. x", "a &amp; b", "b" * 3999, "漢" * 4000, "😀" * 4000,
    ]  # fmt: skip
    async with run_emulator(version=version) as client:
        path, _ = await index_text(client, "###".join(texts))
        segments = await list_segments(client, path)

    assert [segment["content"] for segment in segments] == texts
    assert [segment["position"] for segment in segments] == [*range(1, len(texts) + 1)]
    assert [segment["word_count"] for segment in segments] == [len(text) for text in texts]


@every_version
async def test_chunk_over_the_maximum_loses_its_spaces(version: str) -> None:
    async with run_emulator(version=version) as client:
        contents = await split(client, "word " * 801)

    assert contents == ["word" * 801]


@every_version
@pytest.mark.parametrize(
    "separator",
    ["abcXYZ09", "%%S%%", "###S###", "....S....", ".*+?[]()^$", "\t\t", "     ", "x" * 3999],
)
async def test_ascii_separators_are_exact(version: str, separator: str) -> None:
    async with run_emulator(version=version) as client:
        rule = build_rule(separator)
        contents = await split(client, f"one{separator}two{separator}three", process_rule=rule)

    assert contents == ["one", "two", "three"]


@measured
@pytest.mark.parametrize("separator", ["分隔符", "é", "😀", "\u200b", "a\\tb", "a\\x41b"])
async def test_separators_are_decoded_as_escapes_since_1_11(version: str, separator: str) -> None:
    async with run_emulator(version=version) as client:
        rule = build_rule(separator)
        contents = await split(client, f"one{separator}two", process_rule=rule)

    assert len(contents) == (2 if version == "1.4.3" else 1)


@measured
async def test_backslash_at_the_end_of_a_separator_is_an_error_since_1_11(version: str) -> None:
    async with run_emulator(version=version) as client:
        _, entry = await index_text(client, "one|\\two", process_rule=build_rule("|\\"))

    if version == "1.4.3":
        assert (entry["indexing_status"], entry["total_segments"]) == ("completed", 2)
    else:
        assert entry["indexing_status"] == "error"
        assert "unicodeescape" in entry["error"]


@every_version
@pytest.mark.parametrize("separator", ["\\n", "<|S|>", "\x1f", "\x00", "ïï"])
async def test_separators_that_cleaning_removes_split_nothing(version: str, separator: str) -> None:
    async with run_emulator(version=version) as client:
        rule = build_rule(separator)
        contents = await split(client, f"one{separator}two", process_rule=rule)

    assert len(contents) == 1


@every_version
async def test_hash_is_that_of_the_text_before_symbols_were_stripped(version: str) -> None:
    async with run_emulator(version=version) as client:
        path, _ = await index_text(client, "# cut ###whole")
        cut, whole = await list_segments(client, path)
        change = {"segment": {"content": "#edited"}}
        edited = await client.request("POST", f"{path}/{cut['id']}", json=change)

    assert cut["content"] == "cut"
    assert [
        cut["index_node_hash"],
        whole["index_node_hash"],
        edited.body["data"]["index_node_hash"],
    ] == [
        hashlib.sha256(f"{text}None".encode()).hexdigest()
        for text in ("# cut ", "whole", "#edited")
    ]


@every_version
@pytest.mark.parametrize("technique", ["economy", "high_quality"])
async def test_chunks_created_in_an_empty_document_are_exact(version: str, technique: str) -> None:
    texts = ["#x", "...", "a\r\nb", "<|y|>", "ïï ¿", "x" * 20_000, "## h", "[a]", "\u200b"]
    async with run_emulator(version=version, settings=NO_DEADLOCK) as client:
        path, entry = await index_text(client, "", indexing_technique=technique)
        added = [{"content": text, "keywords": [str(n)]} for n, text in enumerate(texts)]
        await client.request("POST", path, json={"segments": added})
        segments = await list_segments(client, path)
        one = f"{path}/{segments[0]['id']}"
        bad = [
            (await client.request("POST", path, json={"segments": [{"content": text}]})).status
            for text in ("   ", "a\0b")
        ]
        blank, nul = [
            await client.request("POST", one, json={"segment": {"content": text}})
            for text in ("   ", "a\0b")
        ]

    assert (entry["indexing_status"], entry["total_segments"]) == ("completed", 0)
    assert [segment["content"] for segment in segments] == texts
    assert [segment["keywords"] for segment in segments] == [[str(n)] for n in range(len(texts))]
    assert bad == [400, 500]
    assert (blank.status, blank.body["data"]["content"], nul.status) == (200, "   ", 500)


@every_version
async def test_word_count_includes_separators_up_to_1_8(version: str) -> None:
    """Recordings 152 and 269; a text of a removed URL counts, too."""
    rule = build_rule(remove_urls_emails=True)
    async with run_emulator(version=version) as client:
        dataset = await client.create_dataset()
        counts = []
        for text in ("one###two###three", "https://example.com/some/path"):
            await index_text(client, text, dataset=dataset, process_rule=rule)
            (row,) = (await client.request("GET", f"/datasets/{dataset}/documents")).body["data"]
            counts.append((row["word_count"], row["tokens"]))

    assert counts == ([(17, 0), (29, 0)] if version in {"1.4.3", "1.8.1"} else [(11, 0), (0, 0)])


@every_version
async def test_edits_change_rows_only_by_their_length(version: str) -> None:
    """`updated_at` follows edits since 1.11 (recordings 584 and 811)."""
    async with run_emulator(version=version) as client:
        path, _ = await index_text(client, "one###two")
        document, dataset = path.removesuffix("/segments"), "/".join(path.split("/")[:3])
        one = f"{path}/{(await list_segments(client, path))[0]['id']}"

        async def read_state() -> tuple[int, object]:
            (row,) = (await client.request("GET", f"{dataset}/documents")).body["data"]
            detail = await client.request("GET", document)
            shown = detail.body if detail.status == 200 else {}
            return row["word_count"], (shown.get("segment_count"), shown.get("updated_at"))

        before = await read_state()
        for change in ({"content": "eno"}, {"content": "eno", "keywords": ["x"]}):
            await client.request("POST", one, json={"segment": change})
        same = await read_state()
        await client.request("POST", one, json={"segment": {"content": "longer"}})
        longer = await read_state()
        await client.request("POST", one, json={"segment": {"enabled": False}})
        disabled = await read_state()

    assert same == before
    assert longer[0] == before[0] + 3
    assert disabled == longer
