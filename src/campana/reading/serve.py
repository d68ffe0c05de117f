"""A reader over HTTP, with the JSON of `campana read answer`.

    POST /answer    {"question": "Where?", "passage": "In Rome."}                        one answer
    POST /answers   {"questions": [{"question": ..., "passage": ...}, ...]}              {"answers": [...]}, in order
    GET  /health    {"status": "ok", "waiting": 0, "answered": 12, "batches": 9}
    GET  /reader    what the reader is: settings, threshold, calibration
    GET  /docs, /openapi.json

Errors are {"error": {"message", "where", "hint"}}: 400 not JSON, 404, 405, 408 a body that does not come, 413 too large, 422 a field is
wrong, 503 too many wait (with Retry-After), 504 not answered in time. An empty passage or question is no error: the answer says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from campana.errors import CampanaError
from campana.reading.answer import ReaderAnswer
from campana.reading.reader import Reader
from campana.reading.serve_batches import Asked, Batches, Busy
from campana.reading.serve_body import BodyLimit, error_response

MOST_QUESTIONS = 64
MOST_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may take."""

    body_bytes: int = 2_000_000
    """Of the whole request."""
    passage_characters: int = 500_000
    """Of one passage: at some thousand tokens a second, longer ones outlast the time limit."""
    seconds: float = 30.0
    """From the first byte to the answer."""


class Question(BaseModel):
    """One question on a passage."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    question: str
    passage: str
    id: str = Field(default="1", max_length=1000)
    """Given back in the answer."""
    threshold: float | None = Field(default=None, allow_inf_nan=False)
    """Abstain where the margin is above; null: the reader's own."""
    nbest: int = Field(default=5, ge=1, le=MOST_CANDIDATES)
    """Spans listed with the answer."""


class Questions(BaseModel):
    """Several questions, answered in order."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    questions: Annotated[list[Question], Field(min_length=1, max_length=MOST_QUESTIONS)]


@dataclass(frozen=True, slots=True)
class Answer(ReaderAnswer):
    """One answer, as JSON."""

    schema: Literal["campana.reading/1"]


class Answers(BaseModel):
    """Several answers."""

    answers: list[Answer]


class Fault(BaseModel):
    """What is wrong."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    message: str
    where: str | None
    """The field, or the path."""
    hint: str | None
    """What to do."""


class Failure(BaseModel):
    """An error."""

    error: Fault


def create_app(reader: Reader, name: str, limits: Limits = Limits()) -> FastAPI:  # a frozen value
    """The application; its reader thread runs from start to stop of the application."""
    running: dict[str, Batches] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        running["batches"] = Batches(reader)
        yield
        await asyncio.to_thread(running["batches"].close)

    app = FastAPI(
        title="campana reader",
        version=version("campana"),
        description="Answers a question from a passage, or says that the passage has no answer.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={
            "4XX": {"model": Failure, "description": "The request is wrong: what, where, and what to do"},
            "5XX": {"model": Failure, "description": "The server cannot answer now"},
        },
    )
    app.add_middleware(BodyLimit, body_bytes=limits.body_bytes, seconds=limits.seconds)

    async def read(asked: Sequence[Question]) -> list[ReaderAnswer] | Response:
        for number, one in enumerate(asked):
            if len(one.passage) > limits.passage_characters:
                message = f"the passage has {len(one.passage):,} characters; at most {limits.passage_characters:,} are read here"
                where = "passage" if len(asked) == 1 else f"questions[{number}].passage"
                return error_response(413, message, where, "cut it, or read it with `campana read answer`, which has no limit")
        jobs = [Asked(one.id, one.question, one.passage, one.threshold, one.nbest) for one in asked]
        try:
            return await asyncio.wait_for(running["batches"].answer(jobs), limits.seconds)
        except Busy:
            return error_response(503, "too many questions wait already", None, "ask again in a second", {"Retry-After": "1"})
        except TimeoutError:
            hint = "ask fewer questions at once, shorter passages, or start the server with more --seconds"
            return error_response(504, f"not answered within {limits.seconds:g} seconds", None, hint)
        except CampanaError as error:
            return error_response(500, error.message, error.where, error.hint)

    @app.post("/answer", response_model=Answer, summary="Answer one question")
    async def answer(asked: Question) -> Response:
        answers = await read([asked])
        return answers if isinstance(answers, Response) else _json(answers[0].to_json())

    @app.post("/answers", response_model=Answers, summary="Answer several questions, in order")
    async def answer_all(asked: Questions) -> Response:
        answers = await read(asked.questions)
        if isinstance(answers, Response):
            return answers
        return _json('{"answers": [' + ", ".join(one.to_json() for one in answers) + "]}")

    @app.get("/health", summary="Whether it answers, and how much waits")
    async def health() -> dict[str, Any]:
        batches = running["batches"]
        if not batches.alive:
            raise HTTPException(503, "the reader has stopped")
        return {"status": "ok", "waiting": batches.num_waiting, "answered": batches.num_answered, "batches": batches.num_batches}

    @app.get("/reader", summary="What the reader is")
    async def about() -> dict[str, Any]:
        return {"name": name, **reader.stored()}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse((Path(__file__).parent / "serve_page.html").read_text(encoding="utf-8"))

    _tell_errors(app)
    return app


def _json(text: str) -> Response:
    return Response(text.encode("utf-8"), media_type="application/json")


_HINTS = {
    400: "send JSON in UTF-8",
    404: "POST /answer, POST /answers, GET /health, GET /reader, GET /docs",
    405: "questions are sent by POST, the rest is read by GET",
    503: "start the server again; its log says more",
}


def _tell_errors(app: FastAPI) -> None:
    """All errors in one form."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = _path_of(first["loc"])
        if first["type"] == "json_invalid":
            told = f"the body is not JSON: {first['ctx']['error']} (character {first['loc'][-1]})"
            return error_response(400, told, "body", 'send {"question": "...", "passage": "..."}')
        others = len(error.errors()) - 1
        message = first["msg"] + (f" (and {others} more)" if others else "")
        return error_response(422, message, where, "GET /docs shows the fields; the content type is application/json")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        hint = _HINTS.get(error.status_code)
        return error_response(error.status_code, str(error.detail), request.url.path, hint, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return error_response(500, f"the server made a mistake: {type(error).__name__}", None, "its log says more")


def _path_of(place: Sequence[Any]) -> str:
    """`questions[3].passage` of ("body", "questions", 3, "passage")."""
    words = [word for word in place if word != "body"]
    return "".join(f"[{word}]" if isinstance(word, int) else f".{word}" for word in words).lstrip(".") or "body"


def serve_reader(reader: Reader, name: str, host: str, port: int, limits: Limits) -> None:
    """Serve until SIGINT or SIGTERM, then answer what was asked and return. UserError where the address cannot be had."""
    import signal
    import socket
    import sys

    import uvicorn

    from campana.errors import UserError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # who reads the address below can call at once
    except OSError as error:
        listener.close()
        raise UserError(f"cannot listen: {error.strerror or error}", where=f"{host}:{port}", hint="give another --port, or 0") from error
    app = create_app(reader, name, limits)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=int(limits.seconds) + 1)
    server = uvicorn.Server(config)
    # uvicorn raises the signal again once it has stopped; a stop that was asked for is not a failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    sys.stderr.write(f"{name} at {address} (POST /answer; GET /docs, /health); Ctrl-C stops\n")
    sys.stderr.flush()
    server.run(sockets=[listener])
    sys.stderr.write("stopped\n")
