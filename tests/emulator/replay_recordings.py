"""Replay recorded requests against an emulator, with its ids in place of the recorded ones.

The recordings are a sample: the request that created a dataset or document is often missing. Such
an object is created first, as the recorded responses describe it.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from attrs import define, field, frozen
from emulator_client import EmulatorClient, Response
from recorded_shapes import UNFINISHED_STATUSES, ShapeComparison, compare_responses

from dify_kb.emulator import Emulator, ManualClock
from dify_kb.emulator.store import TagRow
from dify_kb.emulator.stub_models import EMBEDDING_MODEL, PROVIDER_NAME, RERANKING_MODEL

DATA = Path(__file__).parent / "data" / "replay"

_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_IDS_AND_BATCHES = re.compile(f"{_ID.pattern}|\\d{{20}}")
_UNKNOWN_ID_PATTERN = re.compile(r"0{8}-|9E2A7F21-4BAD-4E53-BE7A-0BBB224D3E8A|20200101000000123456")

_AUTHORIZATIONS = {
    "003-auth-bearer-lowercase-ok": "bearer {key}",
    "Authorization header must be provided and start with 'Bearer'": "",
    "Authorization scheme must be 'Bearer'": "Basic x",
    "Access token is invalid": "Bearer app-x",
}
"""The `Authorization` header by case or recorded message; the recordings omit it."""

SKIPPED = {
    r"^\d+-hq(ret)?-.*embed-": "the model failed on purpose",
    r"other-tenant": "requires a second workspace",
    r"ratelimit|billing": "requires the cloud's billing",
    r"race|transitions|^1104-|-race$": "not a single exchange",
    r"^128-": "the preceding request was not recorded",
    r"apioff": "requires the console's switch of the API",
    r"inuse": "requires an app",
    r"dataset-key": "belongs to another API",
    r"paused": "the state was forced in the database",
    r"qa-llm-(segments|retrieve)|summary-(doc-list|segments|segment-get$|retrieve)": (
        "an LLM wrote the questions or summaries"
    ),
    r"models-of-(llm|text-embedding)|models-none": "the workspace had other models",
    r"^1408-": "a text of 15 MiB takes too long to split",
    r"^2177-": "aiohttp sends no control character in a file name",
    r"^1561-": "aiohttp sends a content type with every file",
    r"^21\d\d-ext-": "requires an external knowledge API, which only the console registers",
}
"""Cases that cannot be replayed: patterns of their names, and the reason."""

WITH_MODELS = re.compile(
    r"^\d+-(hq|hqret|hier)-(?!on-economy)|^104[4-9]-|^1068-|^(1[2-9]|2[0-9])\d\d-"
)
"""Cases recorded after models were added to the servers."""

STUB_MODELS = {
    "langgenius/openai/openai": PROVIDER_NAME,
    "langgenius/cohere/cohere": PROVIDER_NAME,
    "langgenius/bedrock/bedrock": PROVIDER_NAME,
    "text-embedding-3-small": EMBEDDING_MODEL,
    "amazon.titan-embed-text-v2:0": EMBEDDING_MODEL,
    "rerank-v3.5": RERANKING_MODEL,
    "cohere.rerank-v3-5:0": RERANKING_MODEL,
    '"openai"': f'"{PROVIDER_NAME.rpartition("/")[2]}"',
    '"bedrock"': f'"{PROVIDER_NAME.rpartition("/")[2]}"',
}
"""Models of the recorded servers, and their replacements."""

STILL_INDEXING = re.compile(
    r"^\d+-(wait|big|deldsw|hq-slow2?)-(?!then)|^377-arch|^37[89]-arch|^380-status-arch"
)
"""Cases with documents whose indexing had not finished."""

UNRECORDED_REQUESTS = {
    "367-status-enable-get": ("PATCH", "status/enable"),
    "452-big-delete-midway-get": ("DELETE", ""),
    "1024-hier-cc-delete-again": ("DELETE", "itself"),
    "1402-patchdoc-disabled": ("PATCH", "status/disable"),
    "1944-rt-filter-builtin-on-document_name-is": ("POST", "metadata/built-in/enable"),
}
"""Unrecorded requests to the document or dataset of a case, sent before that case."""

EARLIER_OBJECTS = {
    ("1.12.1", "003-auth-bearer-lowercase-ok"): ("/datasets", {"name": "from before"}),
    ("1.12.1", "820-tags-list-empty"): ("/datasets/tags", {"name": "from before"}),
}
"""Objects that a server had from before the recording, created before the first case with them."""

METADATA_SOURCES = {
    "752-ret-keyword": "752-ret-keyword",
    "780-ret-filter-is": "803-ret-filter-no-conditions",
    "1800-rt-stored": "1917-rt-filter-number-gt-null",
    "1962-rt-eco-keyword-order": "1962-rt-eco-keyword-order",
}
"""Cases that need documents with their metadata from the response of another case."""

LIST_SOURCES = {
    "374-arch-list-available": "374-arch-list-available",
    "1694-state-list-error": "1700-state-list-completed",
}
"""Cases that need the documents, with their states, that another case lists."""

TAGS_CASE = "1457-tags-of-a"
"""The first case of a dataset whose tags were bound by a request that was not recorded."""

LONG_LIST_CASE = "1060-page200-page=1-limit=100"
"""The first case of a dataset with 200 documents."""

_FIELD_TYPES = ("string", "number", "time")
_BUILT_IN = frozenset({"document_name", "uploader", "upload_date", "last_update_date", "source"})

_LOCK_MESSAGE = "is being indexed, please try again later"
_PARAGRAPHS = {
    "mode": "custom",
    "rules": {"pre_processing_rules": [], "segmentation": {"separator": "\n\n", "max_tokens": 900}},
}
_FAILING_RULE = {
    "mode": "custom",
    "rules": {"pre_processing_rules": [], "segmentation": {"separator": "\n", "max_tokens": 10}},
}


@frozen
class CaseResult:
    """The result of a case: differences between the responses, or the reason for skipping."""

    case: str
    skip_reason: str = ""
    differences: tuple[str, ...] = ()
    has_same_message: bool | None = None
    """Whether the error messages are identical; None for a successful response."""


@define
class RecordedObjects:
    """The objects that occur in recorded responses, by id."""

    objects: dict[str, dict[str, Any]] = field(factory=dict)
    responses: dict[str, Any] = field(factory=dict)
    first_case: dict[str, str] = field(factory=dict)
    documents: dict[str, str] = field(factory=dict)
    """Document ids by recorded batch id."""

    forms: dict[str, str] = field(factory=dict)
    """Document forms by document id."""

    techniques: dict[str, str] = field(factory=dict)
    """Indexing techniques by dataset id, as its first document sent it."""

    def text(self, document: str) -> str:
        """Return a text that is split into the recorded segments."""
        segments = {
            entity["position"]: entity["content"].replace("\n\n", "\n")
            for entity in self.objects.values()
            if entity.get("document_id") == document and "content" in entity
        }
        return "\n\n".join(segments[position] for position in sorted(segments)) or _TEXT

    @classmethod
    def from_rows(cls, rows: list[dict[str, Any]]) -> RecordedObjects:
        recordings = cls()
        for row in rows:
            if "request" not in row:
                continue
            for match in _ID.findall(row["request"]["path"]):
                recordings.first_case.setdefault(match, row["case"])
            recordings._record_batch(row)
            recordings._record_technique(row["request"])
            recordings.responses[row["case"]] = row["response"].get("body")
            for entity in _iter_objects(row["response"].get("body")):
                # The first response is closest to the state at creation.
                recordings.objects[entity["id"]] = entity | recordings.objects.get(entity["id"], {})
        return recordings

    def _record_batch(self, row: dict[str, Any]) -> None:
        body = row["response"].get("body")
        match = re.search(r"/documents/(\d{20})/indexing-status", row["request"]["path"])
        if match and isinstance(body, dict) and body.get("data"):
            self.documents[match[1]] = body["data"][0]["id"]
        match = re.search(f"/documents/({_ID.pattern})/segments", row["request"]["path"])
        if match and isinstance(body, dict) and "doc_form" in body:
            self.forms[match[1]] = body["doc_form"]
        if isinstance(body, dict) and "batch" in body:
            self.documents[body["batch"]] = body["document"]["id"]

    def _record_technique(self, request: Mapping[str, Any]) -> None:
        match = re.match(f"/v1/datasets/({_ID.pattern})/document/create", request["path"])
        if match and isinstance(request.get("json"), dict):
            technique = request["json"].get("indexing_technique")
            self.techniques.setdefault(match[1], technique or "economy")


@define
class Replay:
    """An emulator, and the mapping of recorded ids to its own."""

    clock: ManualClock
    recordings: RecordedObjects
    version: str
    client: EmulatorClient = field(init=False)
    ids: dict[str, str] = field(factory=dict)
    technique: dict[str, str | None] = field(factory=dict)
    recreated_ids: set[str] = field(factory=set)
    """Recorded ids of recreated objects, whose state may differ."""

    hold: bool = False
    blocking_datasets: list[str] = field(factory=list)
    batches: dict[str, str] = field(factory=dict)
    """The latest batch by document id, both of the emulator."""

    async def replay_case(self, row: Mapping[str, Any]) -> CaseResult:
        """Replay a case and compare the responses."""
        name = row["case"]
        skip_reason = _find_skip_reason(row)
        if skip_reason:
            return CaseResult(name, skip_reason)
        try:
            await self._prepare_case(row)
        except LookupError as error:
            return CaseResult(name, str(error))
        response = await self._send(row["request"], name)
        theirs = row["response"]
        ours = _parse_json(response)
        if response.status < 300 and theirs["status"] < 300:
            self._map_ids(theirs.get("body"), ours)
        dataset = _ID.search(row["request"]["path"])
        if dataset:
            await self._index_created(
                ours, self._translate_ids(dataset[0]), hold=STILL_INDEXING.match(name) is not None
            )
        rebuilt = self.recreated_ids & {*_IDS_AND_BATCHES.findall(row["request"]["path"])}
        comparison = ShapeComparison(self.ids, self.recreated_ids, compares_nulls=not rebuilt)
        differences = tuple(compare_responses(response, ours, theirs, comparison))
        return CaseResult(name, "", differences, self._has_same_message(ours, theirs))

    async def _prepare_case(self, row: Mapping[str, Any]) -> None:
        """Bring the emulator into the state before a case, as far as it was recorded."""
        name = row["case"]
        await self._hold_indexing(STILL_INDEXING.match(name) is not None)
        await self._recreate_named_objects(row["request"], name)
        earlier_object = EARLIER_OBJECTS.get((self.version, name))
        if earlier_object is not None:
            path, body = earlier_object
            await self.client.request("POST", path, json=body)
        if name == LONG_LIST_CASE:
            await self._create_long_list(row["request"])
        if name in METADATA_SOURCES:
            await self._restore_metadata(
                row["request"], self.recordings.responses[METADATA_SOURCES[name]]
            )
        if name == TAGS_CASE:
            await self._bind_tags(row)
        if name in LIST_SOURCES:
            await self._restore_documents(
                row["request"], self.recordings.responses[LIST_SOURCES[name]]
            )
        if name in UNRECORDED_REQUESTS:
            await self._send_unrecorded(row["request"], *UNRECORDED_REQUESTS[name])

    def _has_same_message(self, ours: Any, theirs: Mapping[str, Any]) -> bool | None:
        body = theirs.get("body")
        if theirs["status"] < 400 or not isinstance(body, dict):
            return None
        # Long texts were truncated in the recordings.
        our_text, recorded_text = (
            json.dumps(ours, sort_keys=True),
            self._translate_ids(json.dumps(body, sort_keys=True)),
        )
        return our_text[:290] == recorded_text[:290]

    async def _recreate_named_objects(self, request: Mapping[str, Any], case: str) -> None:
        """Create the objects that the request names and that do not exist yet."""
        text = json.dumps([request["path"], request.get("query"), request.get("json"),
                           request.get("form")])  # fmt: skip
        for recorded in dict.fromkeys(_IDS_AND_BATCHES.findall(text)):
            if recorded not in self.ids and not _UNKNOWN_ID_PATTERN.match(recorded):
                await self._recreate(recorded, request["path"], case)

    async def _restore_metadata(self, request: Mapping[str, Any], recorded_body: Any) -> None:
        """Assign the metadata that a recorded response contains."""
        recorded = _ID.findall(request["path"])[0]
        path = f"/datasets/{self.ids[recorded]}"
        for record in recorded_body["records"]:
            document = record["segment"]["document"]
            if document["id"] not in self.ids:
                await self._recreate_document(document["id"], recorded, "")
            values = document["doc_metadata"]
            if values is None:
                continue
            fields = (await self.client.request("GET", f"{path}/metadata")).body["doc_metadata"]
            types = {entity["name"]: entity["id"] for entity in fields}
            for name, value in values.items():
                if name in types or name in _BUILT_IN:
                    continue
                kind = "string" if isinstance(value, str) else "number"
                body = {"type": kind, "name": name}
                types[name] = (
                    await self.client.request("POST", f"{path}/metadata", json=body)
                ).body["id"]
            items = [
                {"id": types[name], "name": name, "value": value}
                for name, value in values.items()
                if name not in _BUILT_IN
            ]
            operation = {"document_id": self.ids[document["id"]], "metadata_list": items}
            body = {"operation_data": [operation]}
            await self.client.request("POST", f"{path}/documents/metadata", json=body)

    async def _bind_tags(self, row: Mapping[str, Any]) -> None:
        """Bind the tags that a recorded response lists."""
        dataset = self._translate_ids(_ID.findall(row["request"]["path"])[0])
        for tag in row["response"]["body"]["data"]:
            if tag["id"] not in self.ids:
                await self._recreate_tag(tag["id"])
            body = {"tag_ids": [self.ids[tag["id"]]], "target_id": dataset}
            await self.client.request("POST", "/datasets/tags/binding", json=body)

    async def _recreate_tag(self, recorded: str) -> None:
        """Create a tag. 1.12.1 does so, too, but refuses to return it."""
        name = self.recordings.objects[recorded]["name"]
        await self.client.request("POST", "/datasets/tags", json={"name": name})
        tags = list_tags(self.client.emulator)
        self.ids[recorded] = next(tag.id for tag in tags if tag.name == name)

    async def _restore_documents(self, request: Mapping[str, Any], listed: Any) -> None:
        """Create the listed documents, oldest first, and set their states."""
        recorded = _ID.findall(request["path"])[0]
        path = f"/datasets/{self.ids[recorded]}/documents/status"
        for row in sorted(listed["data"], key=lambda row: row["position"]):
            if row["id"] not in self.ids:
                await self._recreate_document(row["id"], recorded, "")
            wanted = {"disable": not row["enabled"], "archive": row["archived"]}
            for action in (action for action, is_wanted in wanted.items() if is_wanted):
                body = {"document_ids": [self.ids[row["id"]]]}
                await self.client.request("PATCH", f"{path}/{action}", json=body)

    async def _hold_indexing(self, wanted: bool) -> None:  # noqa: FBT001 -- a state
        """Block the only worker, or release it."""
        if wanted and not self.hold:
            dataset = await self.client.create_dataset(
                f"busy {len(self.ids)}", indexing_technique=None
            )
            await self.client.create_by_text(dataset, "busy")
            self.blocking_datasets.append(dataset)
        if self.hold and not wanted:
            self.clock.advance(10)
            await self.client.request("DELETE", f"/datasets/{self.blocking_datasets.pop()}")
        self.hold = wanted

    async def _create_long_list(self, request: Mapping[str, Any]) -> None:
        """Create the documents of a long list."""
        dataset = self._translate_ids(_ID.findall(request["path"])[0])
        for number in range(200):
            await self.client.create_by_text(dataset, f"document {number:03}", "text")

    async def _send_unrecorded(self, request: Mapping[str, Any], method: str, end: str) -> None:
        """Send the unrecorded request that preceded this case."""
        if end.startswith("metadata/"):
            dataset = self._translate_ids(_ID.findall(request["path"])[0])
            await self.client.request(method, f"/datasets/{dataset}/{end}")
            return
        path = re.match(f"(/v1/datasets/{_ID.pattern}/documents/)({_ID.pattern})", request["path"])
        if path is None:
            raise LookupError("the preceding request was not recorded")
        missing_request = {"method": method, "path": path[1] + (end or path[2])}
        if end == "itself":
            missing_request = {"method": method, "path": request["path"]}
        elif end:
            missing_request["json"] = {"document_ids": [path[2]]}
        await self._send(missing_request, "")

    async def _recreate(self, recorded: str, path: str, case: str) -> None:
        dataset = re.match(f"/v1/datasets/({_ID.pattern})", path)
        document = re.search(f"/documents/({_ID.pattern})", path)
        if dataset and dataset[1] == recorded:
            await self._recreate_dataset(recorded)
        elif recorded in self.recordings.documents:
            document_id = self.recordings.documents[recorded]
            if document_id not in self.ids and dataset:
                await self._recreate_document(document_id, dataset[1], case)
            self.ids[recorded] = self.batches[self.ids[document_id]]
        elif (document and document[1] == recorded) or "dataset_process_rule_id" in (
            self.recordings.objects.get(recorded, {})
        ):
            await self._recreate_document(recorded, dataset[1] if dataset else "", case)
        elif dataset and self.recordings.objects.get(recorded, {}).get("type") in _FIELD_TYPES:
            await self._recreate_field(recorded, dataset[1])
        elif self.recordings.objects.get(recorded, {}).get("type") == "knowledge":
            await self._recreate_tag(recorded)
        elif dataset is None and "provider" in self.recordings.objects.get(recorded, {}):
            await self._recreate_dataset(recorded)
        elif document and f"/segments/{recorded}" in path:
            await self._find_segment(recorded, dataset[1] if dataset else "", document[1])
        elif re.search(r"status/|metadata$", path) and dataset:
            await self._recreate_document(recorded, dataset[1], case)
        else:
            raise LookupError("the create request was not recorded")

    async def _recreate_dataset(self, recorded: str) -> None:
        recorded_object = self.recordings.objects.get(recorded, {})
        bare = "-bare" in self.recordings.first_case.get(recorded, "")
        known = self.recordings.techniques.get(recorded, "economy")
        technique = None if bare else recorded_object.get("indexing_technique", known)
        body = {"name": f"replay {recorded[:8]}", "indexing_technique": technique}
        if "name" in recorded_object and "provider" in recorded_object:
            body["name"] = recorded_object["name"]
        response = await self.client.request("POST", "/datasets", json=body)
        if response.status != 200:
            response = await self.client.request(
                "POST", "/datasets", json=body | {"name": f"replay {recorded[:8]}"}
            )
        self.ids[recorded] = response.body["id"]

    async def _recreate_document(self, recorded: str, dataset: str, case: str) -> None:
        recorded_object = self.recordings.objects.get(recorded, {})
        if dataset not in self.ids:
            await self._recreate_dataset(dataset)
        fields: dict[str, Any] = {"process_rule": _PARAGRAPHS}
        form = recorded_object.get("doc_form") or self.recordings.forms.get(recorded)
        if form:
            fields["doc_form"] = form
        if (
            "error-doc" in case
            or recorded_object.get("error")
            or recorded_object.get("indexing_status") == "error"
        ):
            fields["process_rule"] = _FAILING_RULE
        response = await self.client.create_by_text(
            self.ids[dataset],
            recorded_object.get("name", f"doc {recorded[:8]}"),
            self.recordings.text(recorded),
            **fields,
        )
        if response.status != 200:
            raise LookupError("the create request was not recorded")
        self._map_ids({"document": {"id": recorded}}, response.body)
        self.recreated_ids.add(recorded)
        await self._index_created(
            response.body, self.ids[dataset], hold=STILL_INDEXING.match(case) is not None
        )

    async def _recreate_field(self, recorded: str, dataset: str) -> None:
        """Create a metadata field."""
        field_object = self.recordings.objects[recorded]
        body = {"type": field_object["type"], "name": field_object["name"]}
        path = f"/datasets/{self.ids[dataset]}/metadata"
        response = await self.client.request("POST", path, json=body)
        if response.status != 201:
            raise LookupError("the create request was not recorded")
        self.ids[recorded] = response.body["id"]

    async def _find_segment(self, recorded: str, dataset: str, document: str) -> None:
        """Map the segment at the recorded position of its document."""
        recorded_object = self.recordings.objects.get(recorded, {})
        path = f"/datasets/{self.ids[dataset]}/documents/{self.ids[document]}/segments"
        response = await self.client.request("GET", path, params={"limit": "100"})
        for segment in response.body.get("data", []) if response.status == 200 else []:
            if segment["position"] == recorded_object.get("position"):
                self.ids[recorded] = segment["id"]
                return
        raise LookupError("the create request was not recorded")

    async def _send(self, request: Mapping[str, Any], case: str) -> Response:
        path = self._translate_ids(request["path"]).removeprefix("/v1")
        options: dict[str, Any] = {"headers": {}, "allow_redirects": False}
        if "query" in request:
            options["params"] = [
                (name, self._translate_ids(str(item)))
                for name, value in _query_pairs(request["query"])
                for item in (value if isinstance(value, list) else [value])
            ]
        if request.get("json") is not None:
            options["json"] = json.loads(self._translate_ids(json.dumps(request["json"])))
        elif "raw_body" in request:
            options["data"] = request["raw_body"].encode()
        elif request.get("type") == "application/json":
            options["data"] = b"null"
        elif "files" in request or request.get("type") == "multipart/form-data":
            options["data"] = self._form(request)
        elif "form" in request:
            options["data"] = {
                name: self._translate_ids(text) for name, text in request["form"].items()
            }
        if "type" in request and request["type"] != "multipart/form-data":
            options["headers"]["Content-Type"] = request["type"]
        body = self.recordings.responses.get(case)
        message = body.get("message") if isinstance(body, dict) else None
        sent = _AUTHORIZATIONS.get(case, _AUTHORIZATIONS.get(str(message)))
        if sent is not None:
            key = self.client.emulator.api_key
            options["headers"]["Authorization"] = sent.format(key=key)
        return await self.client.request(request["method"], path, **options)

    def _form(self, request: Mapping[str, Any]) -> aiohttp.FormData:
        form = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
        for name, text in (request.get("form") or {}).items():
            form.add_field(name, self._translate_ids(text))
        for file in request.get("files", []):
            content = file["preview"].encode()[: file["size"]]
            if content.startswith(b"\x00\x01\x02"):
                content = bytes(range(256)) * 4
            # Only the beginning of a file was recorded.
            content += b"more " * ((file["size"] - len(content)) // 5)
            content += b"." * (file["size"] - len(content))
            form.add_field(
                file["field"],
                io.BytesIO(content),
                filename=file["filename"],
                content_type=file["content_type"] or "application/octet-stream",
            )
        return form

    def _translate_ids(self, text: str) -> str:
        for theirs, ours in STUB_MODELS.items():
            text = text.replace(theirs, ours)
        return _IDS_AND_BATCHES.sub(lambda match: self.ids.get(match[0], match[0]), text)

    def _map_ids(self, theirs: Any, ours: Any) -> None:
        """Map the ids of two responses of the same shape."""
        if isinstance(theirs, dict) and isinstance(ours, dict):
            for name in theirs.keys() & ours.keys() if _have_same_name(theirs, ours) else ():
                self._map_ids(theirs[name], ours[name])
        elif isinstance(theirs, list) and isinstance(ours, list):
            if len(theirs) == len(ours):
                for our_item, their_item in zip(theirs, ours, strict=True):
                    self._map_ids(our_item, their_item)
        elif (
            isinstance(theirs, str)
            and isinstance(ours, str)
            and _IDS_AND_BATCHES.fullmatch(theirs)
            and not _UNKNOWN_ID_PATTERN.match(theirs)
        ):
            self.ids.setdefault(theirs, ours)

    async def _index_created(self, body: Any, dataset: str, *, hold: bool) -> None:
        """Advance the clock until the document just created or updated is indexed."""
        created = isinstance(body, dict) and "batch" in body and "document" in body
        if created:
            self.batches[body["document"]["id"]] = body["batch"]
        if hold:
            return
        self.clock.advance(10)
        path = f"/datasets/{dataset}/documents"
        while created and _is_indexing(
            await self.client.request("GET", path, params={"limit": "100"})
        ):
            self.clock.advance(10)
            await asyncio.sleep(0.002)


_TEXT = "\n\n".join(f"Paragraph {number} talks about topic{number}." for number in range(8))


def list_tags(emulator: Emulator) -> list[TagRow]:
    """Return all tags, although no endpoint of 1.12.1 does."""
    thread = emulator._server_thread
    assert thread is not None
    return thread._store.tags.list_all()


def has_models(row: Mapping[str, Any]) -> bool:
    """Return whether the server had models during the request; case 861 listed them."""
    listed = row["case"].startswith("861-") and bool(row["response"]["body"]["data"])
    return listed or WITH_MODELS.match(row["case"]) is not None


def read_recordings(version: str) -> list[dict[str, Any]]:
    """Return the recorded exchanges of a version, in chronological order."""
    lines = (DATA / f"{version}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _find_skip_reason(row: Mapping[str, Any]) -> str:
    for pattern, reason in SKIPPED.items():
        if re.search(pattern, row["case"]):
            return reason
    if "request" not in row:
        return "not a single exchange"
    body = row["response"].get("body")
    if isinstance(body, dict) and _LOCK_MESSAGE in str(body.get("message")):
        return "caused by a stale lock of the server (measured)"
    return ""


def _iter_objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if isinstance(value.get("id"), str) and _ID.fullmatch(value["id"]):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _iter_objects(item)


def _have_same_name(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Return whether two objects can be the same: name, position and type are equal."""
    return all(
        theirs[name] == ours[name]
        for name in ("name", "position", "type")
        if name in theirs and name in ours
    )


def _is_indexing(response: Response) -> bool:
    return any(entry["indexing_status"] in UNFINISHED_STATUSES for entry in response.body["data"])


def _query_pairs(query: Any) -> list[tuple[str, Any]]:
    return [*query.items()] if isinstance(query, dict) else [(name, item) for name, item in query]


def _parse_json(response: Response) -> Any:
    try:
        return json.loads(response.raw)
    except ValueError:
        return None
