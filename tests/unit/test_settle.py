from __future__ import annotations

from typing import Final

import pytest
from journals import intent

from dify_kb import Loading
from dify_kb.errors import (
    ConnectError,
    KnowledgeError,
    OutcomeUnknownError,
    ProtocolError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)
from dify_kb.ingest.engine.reconcile import LOOKS, PendingUpload, Verdict, judge, landing
from dify_kb.ingest.planning.plan import Do, Planned
from dify_kb.ingest.planning.remote_document import RemoteDocument
from dify_kb.ingest.sources.scan import FoundFile
from dify_kb.models import Document, IndexingStatus
from dify_kb.wire import codec

FOUND = FoundFile(key="a.md", size=4)
BEFORE: Final = "f1"
CREATE: Final = "documents.create_by_file"
ADOPT, SEND, WAIT, REFUSE = Verdict.ADOPT, Verdict.SEND, Verdict.WAIT, Verdict.REFUSE
LEAVE: Final = Verdict.LEAVE


def document(
    file: str | None = BEFORE,
    *,
    size: int | None = 4,
    status: str = "completed",
    enabled: bool = True,
    created_from: str = "api",
) -> Document:
    stored = {"upload_file": {"id": file, "size": size}} if file else None
    return codec.decode(
        Document,
        {
            "id": "d1",
            "name": "a.md",
            "position": 1,
            "data_source_type": "upload_file",
            "data_source_info": None,
            "data_source_detail_dict": stored,
            "dataset_process_rule_id": None,
            "created_from": created_from,
            "created_by": "somebody",
            "created_at": 1_795_000_000,
            "tokens": 0,
            "indexing_status": status,
            "error": None,
            "enabled": enabled,
            "disabled_at": None,
            "disabled_by": None,
            "archived": False,
            "display_status": "available",
            "word_count": 7,
            "hit_count": 0,
            "doc_form": "text_model",
            "doc_metadata": None,
        },
    )


def held(*, lost: bool, replaces: bool = True, until: float = 100.0) -> PendingUpload:
    remote = RemoteDocument(
        document_id="d1", enabled=True, status=IndexingStatus.COMPLETED, upload_file_id=BEFORE
    )
    planned = Planned(
        found=FOUND, name="a.md", do=Do.LOOK, replaces=remote if replaces else None, attempts=1
    )
    return PendingUpload(planned=planned, since=0.0, due=0.0, lost=lost, until=until)


@pytest.mark.parametrize(
    ("found", "lost_early", "lost_late", "waits_late"),
    [
        (None, WAIT, SEND, SEND),
        (document(), WAIT, SEND, SEND),
        (document(status="error"), WAIT, SEND, SEND),
        (document(status="indexing"), WAIT, WAIT, WAIT),
        (document(status="paused"), WAIT, WAIT, WAIT),
        (document("f2"), ADOPT, ADOPT, SEND),
        (document("f2", status="indexing"), ADOPT, ADOPT, WAIT),
        (document("f2", status="error"), ADOPT, ADOPT, SEND),
        (document("f2", size=None), ADOPT, ADOPT, SEND),
        (document("f2", size=5), WAIT, SEND, SEND),
        (document("f2", created_from="web"), WAIT, SEND, SEND),
        (document("f2", size=5, status="indexing"), WAIT, WAIT, WAIT),
        (document(None), WAIT, SEND, SEND),
        (document(enabled=False), REFUSE, REFUSE, REFUSE),
        (document(enabled=False, status="indexing"), REFUSE, REFUSE, REFUSE),
        (document("f2", size=5, enabled=False), REFUSE, REFUSE, REFUSE),
        # What landed and was switched off since is ours all the same.
        (document("f2", enabled=False), ADOPT, ADOPT, REFUSE),
    ],
)
def test_the_document_of_that_name_decides(
    found: Document | None, lost_early: Verdict, lost_late: Verdict, waits_late: Verdict
) -> None:
    assert judge(held(lost=True), found, 99.0) is lost_early
    assert judge(held(lost=True), found, 100.0) is lost_late
    assert judge(held(lost=False, until=0.0), found, 99.0) is waits_late


@pytest.mark.parametrize(
    ("found", "lost_early", "lost_late", "waits_late"),
    [
        (None, WAIT, SEND, SEND),
        (document(), WAIT, SEND, SEND),
        (document(status="indexing"), WAIT, WAIT, WAIT),
        (document("f2"), ADOPT, ADOPT, LEAVE),
        (document("f2", size=5), WAIT, LEAVE, LEAVE),
        (document("f2", size=5, status="indexing"), WAIT, LEAVE, LEAVE),
        (document("f2", size=5, enabled=False), WAIT, LEAVE, LEAVE),
        (document("f2", created_from="web"), WAIT, LEAVE, LEAVE),
        (document(None), WAIT, LEAVE, LEAVE),
    ],
)
def test_a_document_of_somebody_else_is_left_where_it_is_not_to_be_replaced(
    found: Document | None, lost_early: Verdict, lost_late: Verdict, waits_late: Verdict
) -> None:
    """It came after the file was planned, when there was none or one of ours."""
    lost, waits = held(lost=True), held(lost=False, until=0.0)

    assert judge(lost, found, 99.0, replaces=False) is lost_early
    assert judge(lost, found, 100.0, replaces=False) is lost_late
    assert judge(waits, found, 99.0, replaces=False) is waits_late


@pytest.mark.parametrize("found", [None, document(), document(status="error")])
def test_a_time_that_is_to_pass_is_waited_for(found: Document | None) -> None:
    assert judge(held(lost=False), found, 99.0) is WAIT
    assert judge(held(lost=False), found, 100.0) is SEND


def test_any_file_is_another_where_there_was_none() -> None:
    assert judge(held(lost=True, replaces=False), document(), 0.0) is ADOPT


def test_what_an_earlier_run_lost_is_told_from_what_it_replaced() -> None:
    """Not from what the list holds now: that may be what landed."""
    row = intent("a.md", previous="f0")
    planned = Planned(found=FOUND, name="a.md", do=Do.LOOK, row=row, attempts=1)
    waits = PendingUpload(planned=planned, since=0.0, due=0.0, lost=True, until=100.0)

    assert judge(waits, document("f1"), 0.0) is ADOPT
    assert judge(waits, document("f0"), 0.0) is WAIT


@pytest.mark.parametrize(
    ("cause", "part"),
    [
        (ServerError("500", endpoint=CREATE, status=500), "looks"),
        (ProtocolError("no JSON", endpoint=CREATE, status=200), "quarantine"),
        (ServerError("502", endpoint=CREATE, status=502), "patience"),
        (ServerError("504", endpoint=CREATE, status=504), "patience"),
        (RequestTimeoutError("no answer", endpoint=CREATE), "patience"),
        (TransportError("reset", endpoint=CREATE), "quarantine"),
        (ConnectError("reset", endpoint=CREATE), "quarantine"),
        (None, "quarantine"),
    ],
)
def test_so_long_a_create_may_still_land(cause: KnowledgeError | None, part: str) -> None:
    times = Loading()
    error = OutcomeUnknownError("no answer", endpoint=CREATE)
    error.__cause__ = cause

    looks = sum(times.settle[:LOOKS])
    expected = {"looks": looks, "patience": times.patience, "quarantine": times.quarantine}
    assert landing(error, times) == expected[part]
