"""Reading the body of a request: bounded before it is buffered, strict JSON, and errors that name the field.

FastAPI would buffer any body and parse it with `json.loads`, which accepts lone surrogates, raises exceptions of its
own for integers of 5000 digits and for deep nesting, and names no field. pydantic's parser refuses all of these. Large
bodies are parsed in a thread, one at a time, so that none of them holds the event loop.
"""

import asyncio
import contextlib
import gc
import json
import re
from collections.abc import AsyncGenerator, Collection, Iterator
from concurrent.futures import Executor
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive

from unmask_service.api.errors import LONGEST_QUOTE, RefusedError, first_complaint, invalid, quoted
from unmask_service.machine import return_freed_memory

Body = TypeVar("Body", bound=BaseModel)

# a client that is still sending when its request is refused would not read the answer: receive, and drop, so much
LINGER_SECONDS, LINGER_BYTES = 2.0, 64 << 20
LARGE_BODY = 16 << 10  # a smaller body is parsed in less time than a thread needs to start
MOST_FIELDS = 32  # of a form
MOST_TOKENS = 1 << 14  # the field of an error is searched among so many JSON tokens: a hostile body has half a million

_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json", re.IGNORECASE)
_PLACE = re.compile(r"at line (\d+) column (\d+)$")
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}:]', re.DOTALL)


async def read_body(request: Request, model: type[Body], limit: int, parsers: Executor) -> Body:
    """Read, parse and check a body of at most `limit` bytes; one without a content type is read as JSON.

    `parsers` has the one thread for large bodies.

    Raises RefusedError: it is too large, not JSON, or has a value that `model` does not allow.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if not _JSON_TYPE.fullmatch(media_type):
        message = "the body must be JSON: send the header Content-Type: application/json"
        raise RefusedError("unsupported_content_type", message, "Content-Type")
    body = await _receive(request, limit)
    if len(body) < LARGE_BODY:
        return parse(body, model)
    return await asyncio.get_running_loop().run_in_executor(parsers, _parse_large, body, model)


async def read_form(request: Request, limit: int, files: Collection[str]) -> tuple[dict[str, str], dict[str, bytes]]:
    """Read a multipart body of at most `limit` bytes: its fields, and those of its files that `files` names.

    Raises RefusedError: it is too large, no form, or has a file or a field twice, or a file of another name.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        message = "the body must be a form: send the header Content-Type: multipart/form-data; boundary=…"
        raise RefusedError("unsupported_content_type", message, "Content-Type")
    body = await _receive(request, limit)

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(
            request.headers, stream(), max_files=len(files), max_fields=MOST_FIELDS, max_part_size=limit
        ).parse()
    except (MultiPartException, KeyError, UnicodeDecodeError, ValueError) as error:
        raise RefusedError("invalid_form", f"the body is not a valid form: {error}") from error
    fields: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if name in fields or name in contents:
            raise invalid(f"{quoted(name)}: this field is there twice", name[:LONGEST_QUOTE])
        if isinstance(value, str) and name not in files:
            fields[name] = value
        elif not isinstance(value, str) and name in files:
            contents[name] = await value.read()
        else:
            kind = "must be a file" if isinstance(value, str) else "must not be a file"
            raise invalid(f"{name[:LONGEST_QUOTE]}: {kind}", name[:LONGEST_QUOTE])
    return fields, contents


def parse(body: bytes, model: type[Body]) -> Body:
    """Parse and check a body. Raises RefusedError."""
    if not body:
        raise invalid("the body must be a JSON object", None)
    try:
        value = from_json(body)
    except ValueError as error:
        field = field_at(body, str(error))
        where = f"the body, in field {field!r}," if field else "the body"
        raise RefusedError("invalid_json", f"{where} is not valid JSON: {error}", field) from error
    # before pydantic makes an error for each
    if (unknown := next(_unknown_fields(model, value), None)) is not None:
        unknown = unknown[:LONGEST_QUOTE]
        raise invalid(f"{unknown}: there is no such field", unknown)
    _refuse_duplicates(body)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise first_complaint(error.errors(), model.model_fields) from error


def _parse_large(body: bytes, model: type[Body]) -> Body:
    """Parse without garbage collections.

    The parser holds the interpreter's lock, and 350,000 lists would have every object of the process looked at again
    and again: 0.4 s instead of 0.03 s.
    """
    gc.disable()
    try:
        return parse(body, model)
    finally:
        gc.enable()
        return_freed_memory()


def _unknown_fields(model: type[BaseModel], value: object) -> Iterator[str]:
    """The paths of the fields of a JSON value that a model does not have."""
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        field = model.model_fields.get(name)
        if field is None:
            yield name or "''"
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{name}.{path}" for path in _unknown_fields(field.annotation, inner))


def _refuse_duplicates(body: bytes) -> None:
    """Refuse valid JSON in which an object has a field twice: parsers do not agree which of them counts."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise _TwiceError

    try:
        json.loads(body, object_pairs_hook=check, parse_int=str)  # int() refuses many digits
    except _TwiceError:
        path = _path_of_twice(json.loads(body, object_pairs_hook=_Pairs, parse_int=str)) or ""
        raise invalid(f"{quoted(path)}: this field is there twice", path[:LONGEST_QUOTE]) from None


class _TwiceError(Exception):
    """An object has a field twice."""


class _Pairs(list[tuple[str, Any]]):
    """The fields of a JSON object, in their order."""


def _path_of_twice(value: object) -> str | None:
    """The path of the first field of a JSON value that is there twice."""
    seen: set[object] = set()
    for name, inner in value if isinstance(value, _Pairs) else enumerate(value) if isinstance(value, list) else ():
        if name in seen:
            return str(name)
        seen.add(name)
        if (path := _path_of_twice(inner)) is not None:
            return f"{name}.{path}"
    return None


async def _receive(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        await _refuse(request, f"the body has {declared} bytes; the limit is {limit}", more=True)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "the client has gone before the end of the body")
        more = message.get("more_body", False)
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            chunks.clear()
            await _refuse(request, f"the body is longer than the limit of {limit} bytes", more)
    return b"".join(chunks)


async def _refuse(request: Request, message: str, more: bool) -> NoReturn:
    if more:
        await discard_body(request.headers, request.receive)
    raise RefusedError("body_too_large", message)


async def discard_body(headers: Headers, receive: Receive) -> None:
    """Receive the rest of a body for a while: a connection that is closed with unread data is reset, answer lost."""
    if "expect" in headers:  # such a client sends nothing until the server says so
        return
    left = LINGER_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):  # the end, or the client has disconnected
                    return


def field_at(body: bytes, complaint: str) -> str | None:
    """The outermost field in which the parser stopped, if its complaint says where, and near enough to the start."""
    place = _PLACE.search(complaint)
    if place is None:
        return None
    line, column = int(place[1]), int(place[2])
    if line > MOST_TOKENS:
        return None
    start = depth = 0
    for _ in range(line - 1):
        start = body.find(b"\n", start) + 1
    key = string = b"null"
    for count, found in enumerate(_TOKEN.finditer(body, 0, start + column)):
        token = found[0]
        if count == MOST_TOKENS:
            return None
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        elif token == b":" and depth == 1:
            key = string
        elif depth == 1:
            string = token
    try:
        name = json.loads(key)
    except ValueError:
        return None
    return name if isinstance(name, str) and name.isidentifier() and len(name) < 64 else None
