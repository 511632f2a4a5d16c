"""Answers that take as long as their job: they watch whether the client is still there."""

import asyncio
from http import HTTPStatus

import anyio
from fastapi import Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from unmask_service.api.followers import AnyFollower

# the contract says: a comment at least every 15 s of silence
PING_SECONDS = 10
# a client that reads nothing for so long has gone
SEND_TIMEOUT_SECONDS = 60
# nobody sees it, the client has gone (the number is nginx's)
CLIENT_CLOSED_REQUEST = 499


class EventStream(EventSourceResponse):
    """The events of a job behind a position. However the response ends, the follower leaves the job."""

    def __init__(self, follower: AnyFollower, after: int | None = None) -> None:
        super().__init__(
            follower.events(after),
            ping=PING_SECONDS,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
            send_timeout=SEND_TIMEOUT_SECONDS,
            sep="\n",
        )
        self._follower = follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; if the process must end before they do, end the response as if there were no more.

        A client that comes back gets the rest from another process or from the next one.
        """
        service = self._follower.service
        sending = asyncio.create_task(super().__call__(scope, receive, send))
        cutting = asyncio.create_task(service.cut.wait())
        try:
            with service.answering():
                try:
                    await asyncio.wait({sending, cutting}, return_when=asyncio.FIRST_COMPLETED)
                    if sending.done():
                        return sending.result()
                finally:
                    cutting.cancel()
                    sending.cancel()
                    await asyncio.wait({sending})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await _leave(self._follower)
        return None


async def whole_answer(request: Request, follower: AnyFollower) -> Response:
    """The answer at the end of the job, unless the client goes away before."""
    answering = asyncio.create_task(follower.answer())
    leaving = asyncio.create_task(_client_gone(request))
    try:
        with follower.service.answering():
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return Response(answering.result().model_dump_json(), HTTPStatus.OK, media_type="application/json")
    finally:
        answering.cancel()
        leaving.cancel()
        await _leave(follower)


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _leave(follower: AnyFollower) -> None:
    with anyio.CancelScope(shield=True):
        await follower.leave()
