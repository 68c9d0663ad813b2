"""Each source of metadata for itself: what it reads, and what it warns of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dify_kb import (
    Auto,
    ConfigError,
    FileTimes,
    FrontMatter,
    LoadMetadata,
    MetadataSource,
    PathPattern,
    Sidecar,
    Table,
)
from dify_kb.ingest.metadata.collect_metadata import MetadataCollector, list_sources
from dify_kb.ingest.metadata.front_matter import HEAD_SIZE, MAX_HEADER, parse_header
from dify_kb.ingest.metadata.metadata_files import MAX_SIDECAR, TableRows, parse_sidecar
from dify_kb.ingest.sources.found_file import FoundFile

DAY = datetime(2024, 5, 1, tzinfo=UTC)


def read(metadata: LoadMetadata, key: str, **found: object) -> Mapping[str, object]:
    """Return the values of a file without warnings."""
    collected = MetadataCollector.create(list_sources(metadata)).collect(
        FoundFile(key=key, size=1, **found)  # type: ignore[arg-type]  # of the test
    )
    resolved = collected.resolve()
    assert resolved.warnings == []
    return resolved.values


@pytest.mark.parametrize(
    ("pattern", "key", "values"),
    [
        ("{team}/{year:number}/**", "infra/2024/a.md", {"team": "infra", "year": 2024}),
        ("{team}/{year:number}/**", "infra/2024/x/y/a.md", {"team": "infra", "year": 2024}),
        ("{team}/{year:number}/**", "infra/soon/a.md", {}),
        ("{team}/{year:number}/**", "infra/2024", {}),
        ("**/{year:number}/*", "2024/a.md", {"year": 2024}),
        ("**/{year:number}/*", "x/y/2024.5/a.md", {"year": 2024.5}),
        ("{day:time}-{title}.md", "x/2024-05-01-one-two.md", {"day": DAY, "title": "one-two"}),
        ("{day:time}.md", "20240501.md", {"day": DAY}),
        ("v{major}.?/*.md", "v1.2/a.md", {"major": "1"}),
        ("{{x}}/{name:string}.md", "{x}/a.md", {"name": "a"}),
        ("{lang}.md", "x/y/de.md", {"lang": "de"}),
        ("übung/{n}.md", "u\u0308bung/e\u0301.md", {"n": "é"}),
        ("a.b/{n}", "axb/c", {}),
    ],
)
def test_path_pattern_takes_values_from_the_key(
    pattern: str, key: str, values: Mapping[str, object]
) -> None:
    assert read(PathPattern(pattern), key) == values


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "no placeholder"),
        ("a/**", "no placeholder"),
        ("{a}/{a:number}", "two placeholders 'a'"),
        ("{a:int}", "unknown type"),
        ("{a", "not closed"),
        ("a}", "not closed"),
        ("{}", "of 0 characters"),
        ("{source}/*", "built-in"),
    ],
)
def test_invalid_path_pattern_is_an_error(pattern: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        PathPattern(pattern)


def test_date_in_a_path_that_does_not_exist_is_a_warning() -> None:
    collector = MetadataCollector.create([PathPattern("{day:time}.md")])

    resolved = collector.collect(FoundFile(key="2024-13-01.md", size=1)).resolve()

    assert resolved.values == {}
    assert "'day' of type time: '2024-13-01'" in resolved.warnings[0].message


def test_auto_has_the_parts_of_the_key() -> None:
    assert read(Auto(), "a/b/c.tar.GZ") == {
        "path": "a/b/c.tar.GZ", "folder": "a/b", "stem": "c.tar", "extension": "gz",
    }  # fmt: skip
    assert read(Auto(), "LICENSE") == {"path": "LICENSE", "stem": "LICENSE"}


def test_file_times_is_the_modification_time() -> None:
    assert read(FileTimes(), "a", mtime_ns=1_714_521_600_999_999_999) == {"modified": DAY}
    assert read(FileTimes("changed"), "a", mtime_ns=-1) == {
        "changed": datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)
    }
    assert read(FileTimes(), "a", mtime_ns=10**30) == {}
    assert read(FileTimes(), "a") == {}


def test_later_sources_win() -> None:
    sources: list[MetadataSource] = [
        {"a": 1, "b": 1, "c": 1, "path": "x"},
        Auto(),
        lambda item: {"b": 2, "c": 2, "key": item.key},
    ]

    assert read([*sources, lambda _: {"c": 3}], "k", data=b"x") == {
        "a": 1, "b": 2, "c": 3, "path": "k", "stem": "k", "key": "k",
    }  # fmt: skip


def test_a_name_may_state_the_type() -> None:
    assert read(
        {
            "year:number": "2024", "day:time": "2024-05-01", "version:string": 1.5,
            "at:time": DAY.timestamp(), "on": date(2024, 5, 1), "a:b": "c", ":number": "x",
        },
        "k",
    ) == {
        "year": 2024, "day": DAY, "version": "1.5", "at": DAY, "on": DAY, "a:b": "c",
        ":number": "x",
    }  # fmt: skip


@pytest.mark.parametrize(
    "metadata",
    [
        {"source": "x"},
        [Auto(), {"upload_date": 1}],
        [{"upload_date:number": 1}],
        FileTimes("document_name"),
        {"a": None},
        {"day:time": "soon"},
    ],
)
def test_what_is_wrong_for_all_files_is_one_error(metadata: LoadMetadata) -> None:
    with pytest.raises(ConfigError):
        MetadataCollector.create(list_sources(metadata))


@pytest.mark.parametrize("metadata", [5, "front-matter", [FrontMatter], [{}, None], {"a"}])
def test_other_types_are_type_errors(metadata: object) -> None:
    with pytest.raises(TypeError, match="metadata must be"):
        list_sources(metadata)  # type: ignore[arg-type]  # on purpose


def test_two_front_matters_are_an_error() -> None:
    with pytest.raises(ConfigError, match="twice"):
        list_sources([FrontMatter(), FrontMatter(keep=True)])


HEADERS = {
    "title: Reset\nyear: 2024\n": {"title": "Reset", "year": 2024},
    "a: 1.5\nb: -3\nc: 007\nd: '5'\ne: 9876543210987654\n": {
        "a": 1.5, "b": -3, "c": "007", "d": "5", "e": "9876543210987654",
    },
    "day: 2024-05-01\n": {"day": DAY},
    "at: 2024-05-01T02:00:00+02:00\n": {"at": DAY},
    "at: 2024-5-1 0:00\n": {"at": DAY},
    "tags: [a, b, 1]\nmore:\n  - x\n  - 2024-05-01\n": {"tags": "a, b, 1", "more": "x, 2024-05-01"},
    "text: |\n  ---\n  more\n": {"text": "---\nmore\n"},
    "a: &x one\nb: *x\nc: [*x, two]\n": {"a": "one", "b": "one", "c": "one, two"},
    "time: 12:30\nyes: yes\n": {"time": "12:30", "yes": "yes"},
    "2024: x\n": {"2024": "x"},
    "a: !!str 5\n": {"a": "5"},
    "": {},
    "# only a comment\n": {},
    "~\n": {},
}  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(("header", "values"), HEADERS.items())
def test_header_is_read(
    header: str, values: Mapping[str, object], bom: bytes, newline: str
) -> None:
    data = bom + f"---\n{header}---\n".replace("\n", newline).encode()

    parsed = parse_header(data + b"the text")

    assert {name: str(value).strip() for name, value in parsed.values.items()} == {
        name: str(value).strip() for name, value in values.items()
    }
    assert (data + b"the text")[parsed.length :] == b"the text"
    assert list(parsed.warnings) == []


@pytest.mark.parametrize(
    ("header", "values", "problem"),
    [
        ("a: {b: 1}\nc: 2\n", {"c": 2}, "'a': a nested value"),
        ("a: [[1], {b: c}, 2]\nc: 2\n", {"c": 2}, "'a': a nested value"),
        ("a: []\nc: 2\n", {"c": 2}, "'a': an empty list"),
        ("a: 1\na: 2\n", {"a": 2}, "'a': it occurs more than once"),
        ("? [x, y]\n: 1\nc: 2\n", {"c": 2}, "a name is not a text"),
        ("a: 2024-02-30\nc: 2\n", {"c": 2}, "2024-02-30 is not a date"),
        ("a: !!python/object:os.system x\nc: 2\n", {"c": 2}, "unknown tag"),
        ("a: &l [x]\nb: *l\n", {"a": "x"}, "'b': an alias of something else"),
        ("a: *unknown\nc: 2\n", {"c": 2}, "'a': an alias of something else"),
        ("a: 0001-01-01 00:00:00 +10:00\nc: 2\n", {"c": 2}, "is not a date"),
        ("a: 1\n--- b\n", {"a": 1}, "more than one YAML document"),
    ],
)
def test_one_field_that_cannot_be_read_is_a_warning(
    header: str, values: Mapping[str, object], problem: str
) -> None:
    parsed = parse_header(f"---\n{header}---\ntext".encode())

    assert parsed.values == values
    assert parsed.length
    assert [problem in warning.message for warning in parsed.warnings] == [True]


LAUGHS = "a: &a [x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"---\ntitle: x\nno end", "no end"),
        (b"---\n\ta: 1\n---\ntext", "line 2"),
        (b"---\njust a text\n---\ntext", "not a mapping"),
        (b"---\n- a\n- b\n---\ntext", "not a mapping"),
        (b"---\na: b: c\n---\ntext", "not allowed"),
        (b"---\na: \xff\n---\ntext", "not in UTF-8"),
        (b"---\na: \x07\n---\ntext", ""),
        (b"---\na: '" + b"x" * 2**20 + b"'\n---\ntext", "first 64 KiB"),
        (b"---\na: " + b"[" * 30_000 + b"\n---\ntext", ""),
        (b"---\na: 1\n---\n \n", "without text"),
    ],
)
def test_header_that_cannot_be_read_stays_in_the_document(document: bytes, problem: str) -> None:
    parsed = parse_header(document[:HEAD_SIZE])

    assert parsed.length == 0 or not problem
    assert problem in parsed.warnings[0].message


def test_expanding_aliases_are_not_expanded() -> None:
    parsed = parse_header(f"---\n{LAUGHS}---\ntext".encode())

    assert parsed.values == {"a": "x"}
    assert len(parsed.warnings) == 9


@pytest.mark.parametrize(
    "document",
    [
        b"", b"text", b"# Title\n\n```yaml\n---\na: 1\n---\n```\n", b" ---\na: 1\n---\n",
        b"----\na: 1\n----\n", b"\n---\na: 1\n---\n", "---\na: 1\n---\n".encode("utf-16"),
    ],
)  # fmt: skip
def test_document_without_header_is_left_alone(document: bytes) -> None:
    parsed = parse_header(document)

    assert (dict(parsed.values), parsed.length, parsed.warnings) == ({}, 0, ())


def test_header_at_the_limit_is_read() -> None:
    header = b"---\na: '" + b"x" * (MAX_HEADER - 14) + b"'\n---\n"
    assert len(header) == MAX_HEADER

    assert parse_header((header + b"text")[:HEAD_SIZE]).length == MAX_HEADER
    assert parse_header((b"---\nb: 2\n" + header[4:] + b"text" * 9)[:HEAD_SIZE]).length == 0


YAML_BYTES = st.lists(
    st.sampled_from([
        b"---", b"\n", b"\r\n", b"a", b": ", b"- ", b"[", b"]", b"{", b"}", b"&x ", b"*x",
        b"!!int ",
        b"? ", b"|", b">", b"'", b'"', b"#", b"%YAML 1.1", b"...", b"2024-05-01", b"1e9", b"\t",
        b"<<",
        b"\xff", b"\x00", b"\xc3\xa9", b"  ", b", ", b"0x1f", b"2024-99-99", b"\xe2\x80\xa8",
        b"+99:99",
    ]),
    max_size=30,
).map(b"".join)  # fmt: skip


@given(YAML_BYTES | st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(content: bytes) -> None:
    parsed = parse_header(b"---\n" + content + b"\n---\ntext")

    assert (b"---\n" + content + b"\n---\ntext")[parsed.length :].endswith(b"text")


@given(YAML_BYTES | st.binary(max_size=200))
def test_any_bytes_of_a_sidecar_are_read_without_an_error(content: bytes) -> None:
    values, warnings = parse_sidecar(content)

    assert values == {}
    assert warnings


@pytest.mark.parametrize(
    ("attributes", "values"),
    [
        ({"team": "infra", "year": 2024, "x": 1.5}, {"team": "infra", "year": 2024, "x": 1.5}),
        (
            {"tags": ["a", "b"], "day:time": "2024-05-01"},
            {"tags": "a, b", "day:time": "2024-05-01"},
        ),
        (
            {
                "a": {"value": {"type": "STRING", "stringValue": "x"}, "includeForEmbedding": True},
                "b": {"value": {"type": "NUMBER", "numberValue": 5}},
                "c": {"value": {"type": "STRING_LIST", "stringListValue": ["x", "y"]}},
            },
            {"a": "x", "b": 5, "c": "x, y"},
        ),
        (
            {"a": {"value": {"type": "OTHER"}}, "b": [[1]], "c": []},
            {"a": None, "b": [[1]], "c": []},
        ),
    ],
)
def test_sidecar_is_read(attributes: object, values: Mapping[str, object]) -> None:
    content = json.dumps({"metadataAttributes": attributes}).encode()

    assert parse_sidecar(content) == (values, [])
    assert parse_sidecar(b"\xef\xbb\xbf" + content) == (values, [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"\xff", "not in UTF-8"),
        (b"[]", "metadataAttributes"),
        (b'{"metadataAttributes": []}', "metadataAttributes"),
        (b" " * (MAX_SIDECAR + 1), "larger than 1024 KiB"),
    ],
)
def test_malformed_sidecar_is_a_warning(content: bytes, problem: str) -> None:
    values, (warning,) = parse_sidecar(content)

    assert values == {}
    assert problem in warning.message


def test_sidecar_that_is_not_a_file_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "a.md.metadata.json").mkdir()
    collector = MetadataCollector.create([Sidecar()])

    resolved = collector.collect(FoundFile(key="a.md", size=1, path=tmp_path / "a.md")).resolve()

    assert resolved.values == {}
    assert "unreadable" in resolved.warnings[0].message


def write_table(folder: Path, content: str, name: str = "meta.csv") -> Path:
    path = folder / name
    path.write_text(content, newline="")
    return path


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("key,team,year:number\na.md,infra,2024\n", {"team": "infra", "year": 2024}),
        ("team,key\r\ninfra,a.md\r\n", {"team": "infra"}),
        ("file;team;note\na.md;infra;x, y\n", {"team": "infra", "note": "x, y"}),
        ("file\tteam\na.md\tinfra\n", {"team": "infra"}),
        ('key,text\n"a.md","two\nlines, ""x"""\n\n', {"text": 'two\nlines, "x"'}),
        ("\ufeffkey,day:time\n./a.md,2024-05-01\n", {"day": DAY}),
    ],
)
def test_table_has_the_values_of_a_file(
    tmp_path: Path, content: str, values: Mapping[str, object]
) -> None:
    table = Table(write_table(tmp_path, content))

    assert read(table, "a.md") == values
    assert read(table, "b.md") == {}


def test_table_of_json_lines_has_typed_values(tmp_path: Path) -> None:
    rows = '{"key": "a.md", "year": 2024, "day:time": "2024-05-01"}\n\n{"key": "b.md", "x": 1.5}\n'
    table = Table(write_table(tmp_path, rows, "meta.jsonl"))

    assert read(table, "a.md") == {"year": 2024, "day": DAY}
    assert read(table, "b.md") == {"x": 1.5}


def test_empty_and_wrong_cells_are_warnings(tmp_path: Path) -> None:
    table = Table(write_table(tmp_path, "key,team,year:number\na.md,,soon\nb.md\n"))
    collector = MetadataCollector.create([table])

    resolved = collector.collect(FoundFile(key="a.md", size=1)).resolve()

    assert resolved.values == {}
    assert [warning.kind.partition(":")[0] for warning in resolved.warnings] == ["team", "year"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("m.csv", "", "line 1 has no names"),
        ("m.csv", "key,a,a\n", "repeated name"),
        ("m.csv", "key,a,\n", "empty or repeated name"),
        ("m.csv", "key,a\nx,1,2\n", "line 2 has 3 cells, not 2"),
        ("m.csv", 'key,a\nx,"1\n', "line 2 is invalid"),
        ("m.csv", "key,a\n,1\n", "line 2 has no key"),
        ("m.csv", "key,source\nx,1\n", "built-in"),
        ("m.jsonl", '{"key": "x"}\n{"key": \n', "line 2 is not valid JSON"),
        ("m.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("m.jsonl", '{"key": 5}\n', "line 1 has no key"),
    ],
)
def test_malformed_table_is_an_error(tmp_path: Path, name: str, content: str, problem: str) -> None:
    table = Table(write_table(tmp_path, content, name))

    with pytest.raises(ConfigError, match=problem):
        MetadataCollector.create([table])


def test_table_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    latin = tmp_path / "latin.csv"
    latin.write_bytes("key,name\na.md,Caf\xe9\n".encode("latin-1"))

    with pytest.raises(ConfigError, match="not in UTF-8: byte 0xE9 in line 2"):
        MetadataCollector.create([Table(latin)])
    with pytest.raises(ConfigError, match="no such file"):
        MetadataCollector.create([Table(tmp_path / "missing.csv")])


def test_repeated_and_unknown_keys_of_a_table_are_one_warning_each(tmp_path: Path) -> None:
    rows = "".join(f"{number}.md,x\n" for number in (1, 2, 3, 3, 4))
    table = TableRows.from_file(write_table(tmp_path, f"key,a\n{rows}"))

    assert table.read(FoundFile(key="1.md", size=1)) == {"a": "x"}

    path = tmp_path / "meta.csv"
    assert table.warnings(complete=True) == [
        f"Table {path}: 1 row repeats the key of an earlier row and replaces it, such as '3.md'.",
        f"Table {path}: no file has the key of 3 of 4 rows, such as '2.md'.",
    ]
    assert len(table.warnings(complete=False)) == 1
