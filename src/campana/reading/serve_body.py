"""Request bodies: read whole before anything else, within a size and a time. And the one form of errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def error_response(status: int, message: str, where: str | None, hint: str | None, headers: Mapping[str, str] | None = None) -> Response:
    """`{"error": {"message", "where", "hint"}}`: what is wrong, in which field, and what to do."""
    content = json.dumps({"error": {"message": message, "where": where, "hint": hint}})
    return Response(content, status, dict(headers or {}), "application/json")


class BodyLimit:
    """ASGI middleware: 413 for a body over the limit, announced or not; 408 for one that does not come."""

    def __init__(self, app: ASGIApp, body_bytes: int, seconds: float) -> None:
        self._app = app
        self._body_bytes = body_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by an error, or hand the request on with its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        hint = f"at most {self._body_bytes:,} bytes are read here; start the server with more --body-bytes"
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._body_bytes:
            await error_response(413, f"the body has {int(announced):,} bytes", "body", hint)(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._whole(receive), self._seconds)
        except TimeoutError:
            told = error_response(408, f"the body did not come within {self._seconds:g} seconds", "body", "send it again")
            await told(scope, receive, send)
            return
        if body is None:
            await error_response(413, "the body is too large", "body", hint)(scope, receive, send)
            return
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, again, send)

    async def _whole(self, receive: Receive) -> bytes | None:
        """The body; None over the limit, b"" from a caller that is gone."""
        pieces: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b""
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._body_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(pieces)
