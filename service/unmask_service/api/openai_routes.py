"""The endpoints that clients of OpenAI's API use; they become the same requests, jobs and logs as `/generate`."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel

from unmask_service.api.admission import AnyBody, admit_call
from unmask_service.api.bodies import read_body
from unmask_service.api.chat_template import ChatTemplateError
from unmask_service.api.errors import invalid
from unmask_service.api.openai_answers import Call, ChatAnswer, ChatCompletion, Completion, CompletionAnswer
from unmask_service.api.openai_bodies import ChatBody, CompletionBody
from unmask_service.api.routes import REFUSALS, EventStream, door, whole_answer
from unmask_service.api.service import Models, Service

# such clients read every line of a stream as JSON: no comment may break the silence
NEVER = 10**9

# a frame of a stream: `data` is a chunk as JSON, or `[DONE]` at the end
FRAME = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
KeyHeader = Annotated[str | None, Header(description="the same key gives the same answer")]


def openai_routes(models: Models) -> APIRouter:
    """The routes of completions, of prompts and of chats."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=REFUSALS)
    limit, parsers = models.max_body_bytes, models.shared.parsers

    @router.post(
        "/completions", response_model=None, responses=answer_or_stream(CompletionAnswer), summary="Complete texts"
    )
    async def completions(request: Request, idempotency_key: KeyHeader = None) -> Response:
        """Continue prompts, or fill the gap before a suffix."""
        body = await read_body(request, CompletionBody, limit, parsers)
        service, key = await door(models, request, body.model, body, idempotency_key)
        bodies: list[AnyBody] = [*body.requests(), *(score for score in body.scores() if score is not None)]
        followers = await admit_call(service, "cmpl", bodies, key)
        return await reply(request, Completion(body, followers))

    @router.post(
        "/chat/completions", response_model=None, responses=answer_or_stream(ChatAnswer), summary="Continue a chat"
    )
    async def chat(request: Request, idempotency_key: KeyHeader = None) -> Response:
        """Write the next message of a chat, by the template of the model, with its author's settings as defaults."""
        body = await read_body(request, ChatBody, limit, parsers)
        service, key = await door(models, request, body.model, body, idempotency_key)
        prompt = await rendered(service, body)
        followers = await admit_call(service, "chatcmpl", [body.request(prompt, service.card.generation or {})], key)
        return await reply(request, ChatCompletion(body, followers))

    return router


async def rendered(service: Service, body: ChatBody) -> str:
    """The prompt that the template of a model makes of messages. Raises RefusedError."""
    served, shared = service.gate.pass_through(), service.shared
    template = served.texts.chat_template
    if template is None or served.model.tokenizer is None:
        lacks = "tokenizer" if served.model.tokenizer is None else "chat template"
        raise invalid(
            f"messages: model {served.name!r} has no {lacks}: it completes prompts, in /v1/completions", "messages"
        )
    render = shared.chat_renderer.render
    try:
        context = body.context(served.texts)
        return await asyncio.get_running_loop().run_in_executor(shared.planners, render, template, context)
    except ChatTemplateError as error:
        raise invalid(f"messages: the model's chat template cannot be rendered: {error}", "messages") from error


async def reply(request: Request, call: Call) -> Response:
    """Answer in the form that the body requests."""
    return EventStream(call, call.events(), ping=NEVER) if call.body.stream else await whole_answer(request, call)


def answer_or_stream(answer: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """What an endpoint returns, for the OpenAPI description: `answer`, or with `stream` frames."""
    description = "the answer, or with `stream` its chunks, then [DONE]"
    return {200: {"model": answer, "description": description, "content": {"text/event-stream": {"schema": FRAME}}}}
