"""Server-sent events, split at any position."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dify_kb.models import Event
from dify_kb.wire.sse import SSEDecoder

NODE = b'data: {"event": "node_started", "data": {"title": "\xe6\x95\xb0\xe6\x8d\xae"}}\n\n'
DONE = b'data: {"event": "workflow_finished"}\n\n'
STREAM = (
    b"event: ping\n\n: keep-alive\n\n" + NODE + b"id: 7\nretry: 10\n" + DONE.replace(b"\n", b"\r\n")
)
EXPECTED = [
    Event(event="node_started", data={"event": "node_started", "data": {"title": "数据"}}),
    Event(event="workflow_finished", data={"event": "workflow_finished"}),
]


def decode(*chunks: bytes) -> list[Event]:
    reader = SSEDecoder()
    return [event for piece in chunks for event in reader.feed(piece)]


def test_events_come_whole() -> None:
    assert decode(STREAM) == EXPECTED


@given(st.sets(st.integers(0, len(STREAM)), max_size=8))
def test_a_stream_may_be_cut_anywhere(cuts: set[int]) -> None:
    """TCP may split a stream anywhere: within a character or a line end, or between events."""
    edges = [0, *sorted(cuts), len(STREAM)]

    assert decode(*(STREAM[start:end] for start, end in pairwise(edges))) == EXPECTED


def test_a_stream_may_come_byte_by_byte() -> None:
    assert decode(*(bytes([byte]) for byte in STREAM)) == EXPECTED


def test_an_event_is_given_as_soon_as_it_is_complete() -> None:
    """A run takes minutes; its first event must not wait for the second."""
    reader = SSEDecoder()

    assert list(reader.feed(NODE[:-1])) == []
    assert list(reader.feed(NODE[-1:] + DONE[:5])) == EXPECTED[:1]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_both_line_ends_are_taken(end: bytes) -> None:
    assert decode((NODE + DONE).replace(b"\n", end)) == EXPECTED


@pytest.mark.parametrize(
    "block",
    [
        b": a comment",
        b"event: ping",
        b"",
        b"\n\n",
        b"data:",
        b"data: [DONE]",
        b"data: 7",
        b'data: "text"',
        b'data: {"cut": ',
        b"data: \xff\xfe",
        b"garbage without a colon",
        b"data: " + b"[" * 100_000,
    ],
    ids=lambda block: str(block[:20]),
)
def test_blocks_that_are_not_events_are_skipped(block: bytes) -> None:
    """Keep-alives and additions by proxies must not end the events."""
    assert decode(block + b"\n\n" + DONE) == EXPECTED[1:]


def test_data_may_stand_on_several_lines() -> None:
    assert decode(b'data: {"event":\ndata: "done"}\n\n') == [
        Event(event="done", data={"event": "done"})
    ]


def test_an_event_without_a_name_in_its_data_has_that_of_its_line() -> None:
    assert decode(b'event: message\ndata:{"a": 1}\n\n') == [Event(event="message", data={"a": 1})]


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_no_bytes_break_the_decoder(chunks: list[bytes]) -> None:
    """Invalid data must not raise, as the run continues on the server."""
    for event in decode(*chunks):
        assert isinstance(event, Event)


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(), max_size=3),
        max_size=4,
    ),
    st.integers(1, 7),
)
def test_events_round_trip(written: list[dict[str, object]], size: int) -> None:
    stream = b"".join(b"data: %b\n\n" % json.dumps(data).encode() for data in written)
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]

    assert [event.data for event in decode(*chunks)] == written
