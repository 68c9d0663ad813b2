"""Commands that end with typical errors, for the snapshot of all error messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@frozen
class ErrorCase:
    """A command and the server's faults; braces in the words stand for paths and ids."""

    words: str
    """The command line, separated by spaces; `_` in a word stands for a space."""

    faults: Mapping[str, Sequence[str]] = field(factory=dict)
    unset: str = ""
    """An environment variable that is not set."""


def load(options: str) -> ErrorCase:
    """Return a load of the test's folder into the dataset `base`."""
    return ErrorCase(f"load {{docs}} --dataset base {options}")


def load_one_file(fault: str, options: str = "") -> ErrorCase:
    """Return a load of one file whose uploads meet this fault."""
    return ErrorCase(
        f"load {{docs}}/sub --dataset base --journal {{new}} {options}",
        {"documents.create_by_file": [f"{fault} x999"]},
    )


def sync(options: str) -> ErrorCase:
    """Return a sync of the test's folder with the dataset `base`."""
    return ErrorCase(f"sync {{docs}} --dataset base {options}")


def list_datasets(*faults: str) -> ErrorCase:
    """Return a list of the datasets from a server with these faults."""
    return ErrorCase("datasets list", {"datasets.list": faults})


SECTIONS: Mapping[str, Sequence[ErrorCase]] = {
    "Usage": [
        ErrorCase("lod"),
        ErrorCase("datasets list --colour"),
        ErrorCase("load {docs}"),
        ErrorCase("search --dataset base"),
        ErrorCase("load {docs} --dataset base --wait never"),
        ErrorCase("load {docs} --dataset base --max-failures some"),
        ErrorCase("search --dataset base burrows --top-k 0"),
        ErrorCase("emulator --port http"),
        ErrorCase("emulator --port 70000"),
        ErrorCase("datasets list --profile nope"),
        ErrorCase("datasets list --sort size"),
        ErrorCase("guide nothing"),
    ],
    "Address, key and connection": [
        ErrorCase("datasets list", unset="DIFY_BASE_URL"),
        ErrorCase("datasets list", unset="DIFY_API_KEY"),
        ErrorCase("datasets list --url ftp://x"),
        ErrorCase("datasets list --url emulator:?version=9"),
        ErrorCase("datasets list --url emulator:?colour=red"),
        ErrorCase("datasets list --url http://127.0.0.1:1"),
        ErrorCase("datasets list --api-key wrong"),
        ErrorCase("datasets list --header nonsense"),
        ErrorCase("datasets list --ca /nowhere.pem"),
        ErrorCase("datasets list --proxy nonsense"),
    ],
    "Server errors": [
        list_datasets("400"),
        list_datasets("403"),
        list_datasets("404"),
        list_datasets("409"),
        list_datasets("413"),
        list_datasets("429 x99"),
        list_datasets("500 x99"),
        list_datasets("503-html x99"),
        list_datasets("login-page x99"),
        list_datasets("redirect x99"),
        list_datasets("truncate x99"),
        list_datasets("empty x99"),
        list_datasets("reset x99"),
        ErrorCase("datasets create new", {"datasets.create": ["reset-after 100% x99"]}),
        ErrorCase("datasets create new", {"datasets.create": ["provider-not-initialize"]}),
    ],
    "Names and ids": [
        ErrorCase("datasets show Bsae"),
        ErrorCase("datasets show {unknown}"),
        ErrorCase("documents show --dataset base raedme.txt"),
        ErrorCase("documents show --dataset base {unknown}"),
        ErrorCase("documents show --dataset base twin.txt"),
        ErrorCase("metadata delete --dataset base yaer"),
        ErrorCase("tags show infra"),
        ErrorCase("models show nope"),
        ErrorCase("segments delete --dataset base --document a.txt first"),
        ErrorCase("child-chunks show --dataset base --document a.txt --segment {unknown} x"),
        ErrorCase("journal show nothing"),
    ],
    "Selection and values": [
        ErrorCase("datasets create " + "x" * 41),
        ErrorCase("datasets create new --embedding gpt"),
        ErrorCase("datasets update base"),
        ErrorCase("datasets delete"),
        ErrorCase("datasets delete base"),
        ErrorCase("datasets delete base --name b*"),
        ErrorCase("documents delete --dataset base"),
        ErrorCase("documents delete --dataset base a.txt --all"),
        ErrorCase("documents delete --dataset base --filter year_~_3"),
        ErrorCase("documents delete --dataset base --filter yaer_>_3"),
        ErrorCase("documents delete --dataset base --filter year_after_soon"),
        ErrorCase("documents create --dataset base"),
        ErrorCase("documents create --dataset base --text x"),
        ErrorCase("documents create --dataset base {docs}/reset.md --text x"),
        ErrorCase("documents create --dataset base /nowhere.md"),
        ErrorCase("metadata assign --dataset base --metadata year --all"),
        ErrorCase("metadata assign --dataset base --metadata year=soon --all"),
        ErrorCase("segments create --dataset base --document a.txt"),
        ErrorCase("segments create --dataset base --document a.txt --from /nowhere"),
        ErrorCase("segments create --dataset base --document a.txt --from {docs}/reset.md"),
        ErrorCase("search --dataset base " + "x" * 251),
        ErrorCase("search --dataset base burrows --method hybrid"),
        ErrorCase("search --dataset base burrows --score-threshold 0.5"),
    ],
    "Options of a load": [
        ErrorCase("load /nowhere --dataset base"),
        ErrorCase("load {empty} --dataset base"),
        ErrorCase("load {docs} --dataset bsae"),
        ErrorCase("load --dataset base"),
        load("--include /"),
        load("--rate fast"),
        load("--concurrency 0"),
        load("--deadline soon"),
        load("--metadata x"),
        load("--metadata year:=soon"),
        load("--metadata x=1 --metadata x=2"),
        load("--metadata year=soon"),
        load("--chunk-size 9"),
        load("--chunk-size 100 --chunk-overlap 100"),
        load("--chunk-size 100 --mode automatic"),
        load("--replace swap --wait accepted"),
        load("--null"),
        load("--files-from /nowhere"),
        load("--files-from {list} {docs}"),
        ErrorCase("load {docs}/reset.md --dataset base --files-from {list}"),
        load("--log-file /nowhere/log"),
        load("--journal {foreign}"),
        load("--journal {locked}"),
        load("--journal {damaged}"),
        load("--journal {docs}/reset.md"),
        load("--journal /nowhere/journal.db"),
    ],
    "Loads that stop or fail": [
        load_one_file("400"),
        load_one_file("403"),
        load_one_file("413"),
        load_one_file("404"),
        load_one_file("document-limit"),
        load_one_file("rate-limit"),
        load_one_file("503"),
        load_one_file("413", "--max-failures 0"),
        load_one_file("413", "--errors stop"),
    ],
    "Syncs that hold back or stop": [
        ErrorCase("sync --dataset base"),
        sync("--watch --every 1h"),
        sync("--poll"),
        sync("--max-delete most"),
        sync("--check mounted"),
        ErrorCase("sync {docs}/nowhere --dataset base"),
        ErrorCase("diff {docs}/nowhere --dataset base"),
        ErrorCase("sync {empty} --dataset base"),
        ErrorCase("sync {empty} --dataset new --create"),
        ErrorCase("sync {docs}/sub --dataset base --journal {foreign}"),
        ErrorCase("diff {docs}"),
        ErrorCase(
            "sync {docs}/sub --dataset base --journal {new}",
            {"documents.create_by_file": ["400 x999"]},
        ),
        ErrorCase(
            "sync {docs}/sub --dataset base --journal {new}",
            {"documents.create_by_file": ["document-limit x999"]},
        ),
    ],
    "Other commands": [
        ErrorCase("doctor --api-key wrong"),
        ErrorCase("emulator --faults {{"),
        ErrorCase('emulator --faults {{"documents.create":["503"]}}'),
        ErrorCase('emulator --faults {{"documents.create_by_file":["oops"]}}'),
        ErrorCase("external check http://127.0.0.1:1"),
        ErrorCase("external check 127.0.0.1 --api-key k --knowledge-id x"),
        ErrorCase("eval --dataset base"),
        ErrorCase("eval {list}"),
        ErrorCase("eval {list} --dataset base"),
        ErrorCase("eval {list} --dataset base --corpus {docs}"),
        ErrorCase("eval {list} --corpus /nowhere"),
        ErrorCase("bench --corpus /nowhere"),
        ErrorCase("bench --html /nowhere/report.html"),
        ErrorCase("bench compare {list} {list}"),
    ],
}
"""The cases by section of the snapshot."""
