"""Text of Word documents."""

from __future__ import annotations

from sample_documents import (
    DATA,
    build_docx,
    extract_error_message,
    extract_sample,
    zip_members,
)

from dify_kb.rag import extract


def test_docx_gives_lines_with_links_and_tables_as_markdown() -> None:
    """Words of different formatting are joined, because the server strips every run."""
    (text,) = extract_sample("lease.docx")

    assert text.split("\n") == [
        "Terms of the lease",
        "Terms",
        "Thetenantkeeps the[garden](https://example.org/garden)in order.",
        "The silver otter clause applies from the second year on.",
        "first",
        "second",
        "| Item | Rent |",
        "| --- | --- |",
        "| Flat | 900 |",
        "| Loft | 750 |",
        "code stays",
        "Naïve café \u2013数据库.",
    ]


def test_docx_hyperlink_field_becomes_a_markdown_link() -> None:
    runs = [
        '<w:fldChar w:fldCharType="begin"/>',
        '<w:instrText>HYPERLINK "https://example.org/a"</w:instrText>',
        '<w:fldChar w:fldCharType="separate"/>',
        "<w:t>the </w:t>",
        "<w:t>page</w:t>",
        '<w:fldChar w:fldCharType="end"/>',
        "<w:t> after</w:t>",
    ]
    body = "".join(f"<w:r>{run}</w:r>" for run in runs)

    assert extract(build_docx(f"<w:p>{body}</w:p>"), "docx") == [
        "[thepage](https://example.org/a)after"
    ]


def test_docx_cell_spanning_columns_fills_the_first() -> None:
    wide = '<w:tcPr><w:gridSpan w:val="2"/></w:tcPr>'
    row = "<w:tr>{}</w:tr>"
    one = "<w:tc>{}<w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    rows = row.format(one.format(wide, "head")) + row.format(one.format("", "a") * 2)

    assert extract(build_docx(f"<w:tbl><w:tblGrid/>{rows}</w:tbl>"), "docx") == [
        "| head |  |\n| --- | --- |\n| a | a |"
    ]


def test_empty_paragraphs_of_a_docx_are_empty_lines() -> None:
    body = "<w:p/><w:p><w:r><w:t>a</w:t></w:r></w:p>"

    assert extract(build_docx(body), "docx") == ["\n\na"]


def test_docx_with_missing_parts_is_an_error() -> None:
    assert "[Content_Types].xml" in extract_error_message(zip_members(a="b"), "docx")


def test_truncated_docx_is_an_error() -> None:
    content = (DATA / "lease.docx").read_bytes()

    assert (
        extract_error_message(content[: len(content) // 2], "docx")
        == "Package not found at 'upload.docx'"
    )


def test_workbook_named_docx_is_an_error() -> None:
    message = extract_error_message((DATA / "prices.xlsx").read_bytes(), "docx")

    assert message.startswith("file 'upload.docx' is not a Word file, content type is")
