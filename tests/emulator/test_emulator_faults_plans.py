"""Fault plans: random faults, plans over HTTP, and invalid plans."""

from __future__ import annotations

import json

import pytest
from emulator_client import EmulatorClient, run_emulator
from emulator_documents import CREATE_BY_FILE

from dify_kb.emulator import Emulator, Faults
from dify_kb.errors import ConfigError


def faults_url(client: EmulatorClient) -> str:
    return client.emulator.url.removesuffix("/v1") + "/_emulator/faults"


@pytest.mark.parametrize("word", ["explode", "299", "reset-then-commit", "599-html", "stall"])
def test_unknown_faults_are_rejected(word: str) -> None:
    with pytest.raises(ConfigError, match="Unknown fault"):
        Emulator().faults.plan(CREATE_BY_FILE, [word])


def test_random_faults_are_the_same_for_the_same_seed() -> None:
    """Calls of other endpoints in between do not matter."""
    rates = {CREATE_BY_FILE: {"503": 0.2, "reset": 0.1}, "documents.list": {"500": 0.5}}
    one, other = Faults(), Faults()
    one.random(7, rates)
    other.random(7, rates)
    first = [
        fault and fault.word for fault in (one.take_fault(CREATE_BY_FILE) for _ in range(1000))
    ]
    second = []
    for _ in range(1000):
        other.take_fault("documents.list")
        fault = other.take_fault(CREATE_BY_FILE)
        second.append(fault and fault.word)

    assert first == second
    assert 150 < first.count("503") < 250
    assert 60 < first.count("reset") < 140
    assert one.met() == {CREATE_BY_FILE: {"503": first.count("503"), "reset": first.count("reset")}}


def test_planned_faults_have_priority_and_random_faults_can_be_stopped() -> None:
    faults = Faults()
    faults.random(1, {CREATE_BY_FILE: {"500": 1.0}})
    faults.plan(CREATE_BY_FILE, ["ok"])
    words = [
        fault and fault.word for fault in (faults.take_fault(CREATE_BY_FILE) for _ in range(2))
    ]
    faults.stop_random()

    assert words == ["ok", "500"]
    assert faults.take_fault(CREATE_BY_FILE) is None
    assert faults.left() == {}


async def test_faults_can_be_planned_over_http() -> None:
    async with run_emulator() as client:
        plans = {
            CREATE_BY_FILE: ["503 x2", "reset"],
            "indexing": ["hang", {"words": ["error no"], "names": "*.pdf"}],
            "random": {"seed": 1, "rates": {"server.info": {"500": 1}}},
        }
        async with client.session.post(faults_url(client), json=plans) as reply:
            planned = await reply.json()
        info = await client.request("GET", "/")
        async with client.session.get(faults_url(client)) as reply:
            state = await reply.json()
        async with client.session.delete(faults_url(client)) as reply:
            cleared = await reply.json()

    remaining = {CREATE_BY_FILE: ["503", "503", "reset"], "indexing": ["hang", "error no"]}
    assert planned == {"left": remaining, "met": {}}
    assert info.status == 500
    assert state == {"left": remaining, "met": {"server.info": {"500": 1}}}
    assert cleared == {"left": {}, "met": {"server.info": {"500": 1}}}


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ("no JSON", "Expecting value"),
        ([CREATE_BY_FILE], "Invalid fault plan"),
        ({"no.such": ["503"]}, "Unknown endpoint 'no.such'"),
        ({CREATE_BY_FILE: "503"}, "Invalid plan for 'documents.create_by_file': expected a list"),
        ({CREATE_BY_FILE: [503]}, "Invalid faults [503]: expected a list of strings"),
        ({CREATE_BY_FILE: ["explode"]}, "Unknown fault 'explode'"),
        ({CREATE_BY_FILE: [""]}, "Empty fault word"),
        ({"indexing": ["explode"]}, "Unknown indexing fault 'explode'"),
        ({"indexing": [{"words": ["hang"], "often": 1}]}, "Invalid plan for 'indexing'"),
        ({"indexing": [{"words": ["hang"], "every": 0}]}, "Invalid value for 'every': 0"),
        ({"random": {"rates": {}}}, "Invalid plan for 'random'"),
        ({"random": {"seed": 1, "rates": {CREATE_BY_FILE: {"503": 2}}}}, "expected 0 to 1"),
        ({"random": {"seed": 1, "rates": {CREATE_BY_FILE: {"503": "1"}}}}, "expected 0 to 1"),
        (
            {"random": {"seed": 1, "rates": {CREATE_BY_FILE: {"503": 0.6, "500": 0.6}}}},
            "more than 1",
        ),
    ],
)
async def test_invalid_plans_are_rejected_as_a_whole(plans: object, message: str) -> None:
    """A plan that is only partly active would test something else."""
    async with run_emulator() as client:
        body = {"server.info": ["503"]} | plans if isinstance(plans, dict) else plans
        text = body if isinstance(body, str) else json.dumps(body)
        async with client.session.post(faults_url(client), data=text) as reply:
            status, response = reply.status, await reply.text()

    assert status == 400
    assert message in json.loads(response)["error"]
    assert client.emulator.faults.left() == {}


@pytest.mark.parametrize(
    "word",
    ["commit-then-late 1", "commit-then-413-early", "commit-then-reset-after 5", "stall 1 silent",
     "slow-read 0", "late", "503 x0", "commit-then-ok", "trickle -1"],
)  # fmt: skip
def test_invalid_fault_words_are_rejected(word: str) -> None:
    with pytest.raises(ConfigError, match="Unknown fault"):
        Faults().plan(CREATE_BY_FILE, [word])
