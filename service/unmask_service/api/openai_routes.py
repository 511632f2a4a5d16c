"""The endpoints that clients of OpenAI's API use; they become the same requests, jobs and logs as `/generate`."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from unmask_service.api.admission import admit_call
from unmask_service.api.bodies import read_body
from unmask_service.api.openai_answers import Call, Completion, CompletionAnswer
from unmask_service.api.openai_bodies import CompletionBody
from unmask_service.api.routes import REFUSALS, EventStream, door, whole_answer
from unmask_service.api.service import Models

# such clients read every line of a stream as JSON: no comment may break the silence
NEVER = 10**9

KeyHeader = Annotated[str | None, Header(description="the same key gives the same answer")]


def openai_routes(models: Models) -> APIRouter:
    """The routes of completions."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=REFUSALS)
    limit, parsers = models.max_body_bytes, models.shared.parsers

    @router.post("/completions", response_model=None, responses=answered(CompletionAnswer), summary="Complete texts")
    async def completions(request: Request, idempotency_key: KeyHeader = None) -> Response:
        """Continue prompts, or fill the gap before a suffix."""
        body = await read_body(request, CompletionBody, limit, parsers)
        service, key = await door(models, request, body.model, body, idempotency_key)
        followers = await admit_call(service, "cmpl", body.requests(), key)
        return await reply(request, Completion(body, followers))

    return router


async def reply(request: Request, call: Call) -> Response:
    """Answer in the form that the body requests."""
    return EventStream(call, call.events(), ping=NEVER) if call.body.stream else await whole_answer(request, call)


def answered(answer: Any) -> dict[int | str, dict[str, Any]]:  # noqa: ANN401 — a model
    """The answer of an endpoint, for the OpenAPI description."""
    return {200: {"model": answer, "description": "the answer, or with `stream` its chunks, then [DONE]"}}
