"""The server: the command's JSON, errors that say what, where and what to do, limits, common batches, a stop that answers first."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from campana.errors import ModelError
from campana.reading.examples import Example
from campana.reading.reader import Reader
from campana.reading.serve import Limits, create_app
from campana.reading.serve_batches import Asked, Batches, Busy

PASSAGE = "Anna went to Rome in 1998.  Ben stayed."


class Caller:
    """Requests to an application, each in an event loop of its own thread; no sockets."""

    def __init__(self, app: Any) -> None:
        from starlette.testclient import TestClient

        self.client = TestClient(app, raise_server_exceptions=False)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = self.client.post(path, content=content, headers={"content-type": "application/json", **headers})
        return response.status_code, response.json()


@pytest.fixture(scope="module")
def caller(reader_folder: Path) -> Iterator[Caller]:
    app = create_app(Reader.load(reader_folder), "tiny", Limits(body_bytes=20_000, passage_characters=5000, seconds=20.0))
    made = Caller(app)
    with made.client:
        yield made


def test_the_same_json_as_the_command(caller: Caller, reader_folder: Path, campana: Any) -> None:
    status, said = caller.post("/answer", {"question": "Where?", "passage": PASSAGE})
    code, out, _ = campana("read", "answer", "-m", reader_folder, "-q", "Where?", "-p", PASSAGE)
    assert (status, code, said) == (200, 0, json.loads(out))


def test_several_questions_are_answered_in_order(caller: Caller) -> None:
    asked = [{"question": f"Where {n}?", "passage": PASSAGE, "id": f"q{n}", "nbest": 1 + n % 3, "threshold": 1e9} for n in range(40)]
    status, said = caller.post("/answers", {"questions": asked})
    assert status == 200
    assert [one["id"] for one in said["answers"]] == [one["id"] for one in asked]
    assert [len(one["nbest"]) for one in said["answers"]] == [one["nbest"] for one in asked]
    assert all(PASSAGE[one["start"] : one["end"]] == one["answer"] for one in said["answers"])


@pytest.mark.parametrize(("field", "reason"), [("passage", "empty passage"), ("question", "empty question")])
def test_empty_texts_are_answered(caller: Caller, field: str, reason: str) -> None:
    status, said = caller.post("/answer", {"question": "Where?", "passage": PASSAGE, field: "  "})
    assert (status, said["answer"], said["reason"]) == (200, None, reason)


def test_offsets_count_characters(caller: Caller) -> None:
    passage = "😀😀 Anna  went\u3000to Ｒｏｍｅ. \ud83d"
    body = json.dumps({"question": "Where?", "passage": passage, "threshold": 1e9}).encode()
    status, said = caller.post("/answer", body)
    assert status == 200
    assert passage[said["start"] : said["end"]] == said["answer"]


@pytest.mark.parametrize(
    ("body", "status", "where", "message"),
    [
        ({"question": "Where?"}, 422, "passage", "Field required"),
        ({"question": "Where?", "passage": 3}, 422, "passage", "string"),
        ({"question": "Where?", "passage": "x", "nbest": 99}, 422, "nbest", "less than or equal to 20"),
        ({"question": "Where?", "passage": "x", "nbset": 2}, 422, "nbset", "not permitted"),
        (b'{"question": "Where?", "passage": "x", "threshold": NaN}', 422, "threshold", "finite"),
        ([1], 422, "body", "dictionary"),
        (b'{"question": ', 400, "body", "not JSON"),
        (b'{"question": "\xff", "passage": "x"}', 400, "/answer", "parsing the body"),
        (b"", 422, "body", "required"),
        ({"question": "Where?", "passage": "x" * 5001}, 413, "passage", "5,001 characters; at most 5,000"),
        ({"question": "Where?", "passage": "x" * 30_000}, 413, "body", "bytes"),
    ],
)
def test_what_is_wrong_is_said(caller: Caller, body: Any, status: int, where: str, message: str) -> None:
    got, said = caller.post("/answer", body)
    assert (got, said["error"]["where"]) == (status, where)
    assert message in said["error"]["message"]
    assert said["error"]["hint"]


def test_the_place_of_a_wrong_question_is_said(caller: Caller) -> None:
    good = {"question": "Where?", "passage": "x"}
    status, said = caller.post("/answers", {"questions": [good, {"question": "Where?"}]})
    assert (status, said["error"]["where"]) == (422, "questions[1].passage")
    status, said = caller.post("/answers", {"questions": [good, {**good, "passage": "x" * 5001}]})
    assert (status, said["error"]["where"]) == (413, "questions[1].passage")
    for number in (0, 65):
        status, said = caller.post("/answers", {"questions": [good] * number})
        assert (status, said["error"]["where"]) == (422, "questions")


def test_a_body_of_unknown_length_is_limited_too(caller: Caller) -> None:
    pieces = (b"x" * 1000 for _ in range(30))
    response = caller.client.post("/answer", content=pieces, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["where"]) == (413, "body")


def test_other_paths_and_ways(caller: Caller) -> None:
    missing, wrong = caller.client.get("/nothing"), caller.client.get("/answer")
    assert (missing.status_code, "POST /answer" in missing.json()["error"]["hint"]) == (404, True)
    assert (wrong.status_code, wrong.headers["allow"], bool(wrong.json()["error"]["hint"])) == (405, "POST", True)


def test_health_reader_and_docs(caller: Caller, bert_reader: Any) -> None:
    before = caller.client.get("/health").json()
    caller.post("/answer", {"question": "Where?", "passage": PASSAGE})
    after = caller.client.get("/health").json()
    assert (after["status"], after["waiting"], after["answered"]) == ("ok", 0, before["answered"] + 1)
    assert caller.client.get("/reader").json()["settings"] == bert_reader.settings.as_dict()
    schema = caller.client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/answer", "/answers", "/health", "/reader"}
    told = {name for responses in [schema["paths"]["/answer"]["post"]["responses"]] for name in responses}
    assert {"200", "4XX", "5XX"} <= told
    answer = caller.post("/answer", {"question": "Where?", "passage": PASSAGE})[1]
    assert set(answer) == set(schema["components"]["schemas"]["Answer"]["properties"])
    page = caller.client.get("/docs")
    assert page.status_code == 200
    assert "http://" not in page.text.replace("http://HOST", "")  # nothing is fetched from elsewhere
    assert "https://" not in page.text


def slow(reader: Reader, seconds: float) -> tuple[Reader, threading.Event, list[int]]:
    """A reader that takes its time, an event that it has begun, and the sizes of its batches."""
    begun, sizes = threading.Event(), []

    def forward(batch: Any) -> Any:
        begun.set()
        sizes.append(len(batch.windows))
        time.sleep(seconds)
        return reader.forward(batch)

    return replace(reader, forward=forward), begun, sizes


def test_questions_that_come_together_are_read_together(bert_reader: Any) -> None:
    reader, begun, sizes = slow(bert_reader, 0.2)
    alone = [next(bert_reader.answer([Example(f"q{n}", f"Where {n}?", PASSAGE)])) for n in range(10)]

    async def ask() -> list[Any]:
        batches = Batches(reader)
        first = asyncio.create_task(batches.answer([Asked("q0", "Where 0?", PASSAGE)]))
        await asyncio.to_thread(begun.wait, 5)
        others = [asyncio.create_task(batches.answer([Asked(f"q{n}", f"Where {n}?", PASSAGE)])) for n in range(1, 10)]
        answers = [await task for task in (first, *others)]
        batches.close()
        return answers

    answers = asyncio.run(ask())
    assert sizes == [1, 9]
    for (got,), expected in zip(answers, alone, strict=True):
        assert (got.id, got.answer, got.start) == (expected.id, expected.answer, expected.start)
        assert got.margin == pytest.approx(expected.margin, abs=1e-5)


def test_a_batch_has_a_size(bert_reader: Any) -> None:
    reader, begun, sizes = slow(bert_reader, 0.1)

    async def ask() -> None:
        batches = Batches(reader, max_questions=4, max_waiting=20)
        tasks = [asyncio.create_task(batches.answer([Asked("q", "Where?", PASSAGE)] * 3))]
        await asyncio.to_thread(begun.wait, 5)
        tasks += [asyncio.create_task(batches.answer([Asked("q", "Where?", PASSAGE)] * size)) for size in (3, 1, 2, 9)]
        await asyncio.gather(*tasks)
        batches.close()

    asyncio.run(ask())
    assert sizes == [3, 4, 2, 9]


def test_too_many_waiting_and_stopping_are_busy(bert_reader: Any) -> None:
    reader, begun, _ = slow(bert_reader, 0.3)

    async def ask() -> None:
        batches = Batches(reader, max_waiting=2)
        first = asyncio.create_task(batches.answer([Asked("q", "Where?", PASSAGE)]))
        await asyncio.to_thread(begun.wait, 5)
        second = asyncio.create_task(batches.answer([Asked("q", "Where?", PASSAGE)] * 2))
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await batches.answer([Asked("q", "Where?", PASSAGE)])
        closing = asyncio.create_task(asyncio.to_thread(batches.close))
        assert len(await second) == 2  # what waits is answered before the end
        await first
        await closing
        with pytest.raises(Busy):
            await batches.answer([Asked("q", "Where?", PASSAGE)])

    asyncio.run(ask())


def test_a_caller_that_gave_up_is_passed_over(bert_reader: Any) -> None:
    reader, begun, sizes = slow(bert_reader, 0.2)

    async def ask() -> None:
        batches = Batches(reader)
        first = asyncio.create_task(batches.answer([Asked("q", "Where?", PASSAGE)]))
        await asyncio.to_thread(begun.wait, 5)
        gone = asyncio.create_task(batches.answer([Asked("q", "Where?", PASSAGE)] * 7))
        last = asyncio.create_task(batches.answer([Asked("q", "Where?", PASSAGE)] * 2))
        await asyncio.sleep(0)
        gone.cancel()
        await first
        assert len(await last) == 2
        batches.close()

    asyncio.run(ask())
    assert sizes == [1, 2]


def test_a_reader_that_fails_does_not_stop_the_server(bert_reader: Any) -> None:
    failing = [ModelError("the reader's logits are not finite", hint="train again"), RuntimeError("odd"), None]

    def forward(batch: Any) -> Any:
        if (error := failing.pop(0)) is not None:
            raise error
        return bert_reader.forward(batch)

    caller = Caller(create_app(replace(bert_reader, forward=forward), "tiny"))
    with caller.client:
        asked = {"question": "Where?", "passage": PASSAGE}
        status, said = caller.post("/answer", asked)
        assert (status, said["error"]["hint"]) == (500, "train again")
        status, said = caller.post("/answer", asked)
        assert (status, "RuntimeError" in said["error"]["message"]) == (500, True)
        assert caller.post("/answer", asked)[0] == 200


def test_time_and_room_run_out_with_a_status(bert_reader: Any) -> None:
    reader, _, _ = slow(bert_reader, 0.5)
    caller = Caller(create_app(reader, "tiny", Limits(seconds=0.1)))
    with caller.client:
        status, said = caller.post("/answer", {"question": "Where?", "passage": PASSAGE})
        assert (status, "not answered within 0.1 seconds" in said["error"]["message"]) == (504, True)


def test_a_body_that_does_not_come(bert_reader: Any) -> None:
    app = create_app(bert_reader, "tiny", Limits(seconds=0.05))
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(10)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/answer", "headers": [(b"content-length", b"10")], "query_string": b"", "app": app}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_first(reader_folder: Path, number: int) -> None:
    import urllib.request

    command = [sys.executable, "-c", "from campana.cli import main; main()", "read", "serve", "-m", str(reader_folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = server.stderr.readline().split(" at ")[1].split()[0]
        questions = [{"question": "Where?", "passage": PASSAGE * 200}] * 64
        request = urllib.request.Request(
            f"{address}/answers", json.dumps({"questions": questions}).encode(), {"content-type": "application/json"}
        )
        got: list[Any] = []
        asking = threading.Thread(target=lambda: got.append(json.load(urllib.request.urlopen(request, timeout=60))))
        asking.start()
        time.sleep(0.3)
        server.send_signal(number)
        asking.join()
        assert server.wait(60) == 0
    assert len(got[0]["answers"]) == 64


def test_an_address_in_use(campana: Any, reader_folder: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = campana("read", "serve", "-m", reader_folder, "--port", taken.getsockname()[1])
    assert (code, "cannot listen: Address already in use" in err, "--port" in err) == (2, True, True)
