"""The tokenizer over HTTP, in the form of vLLM's server, for clients that count tokens or send ids."""

import asyncio
import contextlib
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
from tokenizers import Tokenizer
from unmask_diffusion.request import Strict, TokenIds

from unmask_service.api.admission import LARGE_TEXT
from unmask_service.api.bodies import read_body
from unmask_service.api.errors import invalid
from unmask_service.api.routes import REFUSALS
from unmask_service.api.schemas import Message
from unmask_service.api.service import Models, ServedModel
from unmask_service.machine import return_freed_memory

MODEL = "the name that /v1/models lists; may be left out"


class TokenizeBody(Strict):
    """The body of `POST /tokenize`."""

    prompt: str
    add_special_tokens: bool | None = Field(
        default=None,
        description="true: with those that the tokenizer adds to a text; false or left out: as the prompt of /generate",
    )
    model: str | None = Field(default=None, description=MODEL)


class Tokens(Message):
    """A text as token ids."""

    tokens: list[int]
    count: int
    max_model_len: int = Field(description="the longest canvas, in tokens")


class DetokenizeBody(Strict):
    """The body of `POST /detokenize`."""

    tokens: TokenIds
    model: str | None = Field(default=None, description=MODEL)


class Text(Message):
    """Token ids as text, special tokens included."""

    prompt: str


class TokenizerInfo(Message):
    """The texts of special tokens; null where the model has none."""

    eos_token: str | None
    bos_token: str | None
    pad_token: str | None


def tokenizer_routes(models: Models) -> APIRouter:
    """The routes that turn text into tokens and back."""
    router = APIRouter(tags=["tokenizer"], responses=REFUSALS)
    limit, parsers = models.max_body_bytes, models.shared.parsers

    def named(model: str | None) -> ServedModel:
        return models.of(model).gate.look_in()

    @router.post("/tokenize", summary="Tokens of a text")
    async def tokenize(request: Request) -> Tokens:
        """The tokens that a text becomes."""
        body = await read_body(request, TokenizeBody, limit, parsers)
        model = named(body.model).model
        large = len(body.prompt) > LARGE_TEXT
        async with models.shared.large_text if large else contextlib.nullcontext(), models.shared.planning:
            run = asyncio.get_running_loop().run_in_executor
            special = bool(body.add_special_tokens)
            ids = await run(
                models.shared.planners, encode, tokenizer_of(model.tokenizer, "prompt"), body.prompt, special
            )
            if large:
                return_freed_memory()
        return Tokens(tokens=ids, count=len(ids), max_model_len=model.denoiser.length)

    @router.post("/detokenize", summary="Text of tokens")
    async def detokenize(request: Request) -> Text:
        """The text that tokens stand for."""
        body = await read_body(request, DetokenizeBody, limit, parsers)
        model = named(body.model).model
        classes = model.denoiser.vocabulary_size
        if (worst := max(body.tokens, default=0)) >= classes:
            raise invalid(f"tokens holds token id {worst}; the model's ids are 0 … {classes - 1}", "tokens")
        return Text(prompt=tokenizer_of(model.tokenizer, "tokens").decode(body.tokens, skip_special_tokens=False))

    @router.get("/tokenizer_info", summary="Special tokens")
    async def info(model: Annotated[str | None, Query(description=MODEL)] = None) -> TokenizerInfo:
        """The special tokens of the model's texts."""
        texts = named(model).texts
        return TokenizerInfo(eos_token=texts.eos_token, bos_token=texts.bos_token, pad_token=texts.pad_token)

    return router


def tokenizer_of(tokenizer: Tokenizer | None, param: str) -> Tokenizer:
    """A model's tokenizer. Raises RefusedError: it has none."""
    if tokenizer is None:
        raise invalid(f"{param}: this model has no tokenizer, it takes and gives token ids only", param)
    return tokenizer


def encode(tokenizer: Tokenizer, text: str, special: bool) -> list[int]:
    """The token ids of a text."""
    (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=special)
    return encoding.ids
