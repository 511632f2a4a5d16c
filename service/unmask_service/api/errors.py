"""Everything that can go wrong with a request: a table of codes, two kinds of exceptions, and one form of answer.

    ApiError
    ├── RefusedError  before anything is queued: a rejected request
    └── JobError      after that: the log of the job ends with a failure

Every other exception is a bug. It becomes a 500 that says nothing about the inside.
"""

import math
import re
from collections.abc import Container, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from unmask_service.api.schemas import ErrorAnswer, ErrorObject
from unmask_service.broker import ENDPOINTS, BrokerAwayError, BrokerError, Failed, KeyReusedError
from unmask_service.logs import log_rejection
from unmask_service.metrics import Metrics

INVALID, OVERLOADED, RATE_LIMIT = "invalid_request_error", "overloaded_error", "rate_limit_error"
UNAVAILABLE, SERVER = "unavailable_error", "server_error"
# code → HTTP status, and the `type` of the error object
CODES = {
    # a request is refused
    "invalid_json": (HTTPStatus.BAD_REQUEST, INVALID),
    "invalid_form": (HTTPStatus.BAD_REQUEST, INVALID),
    "unsupported_content_type": (HTTPStatus.BAD_REQUEST, INVALID),
    "missing_api_key": (HTTPStatus.UNAUTHORIZED, INVALID),
    "invalid_api_key": (HTTPStatus.UNAUTHORIZED, INVALID),
    "model_not_found": (HTTPStatus.NOT_FOUND, INVALID),
    "card_not_found": (HTTPStatus.NOT_FOUND, INVALID),
    "generation_not_found": (HTTPStatus.NOT_FOUND, INVALID),
    "no_picture": (HTTPStatus.UNPROCESSABLE_ENTITY, INVALID),
    "not_acceptable": (HTTPStatus.NOT_ACCEPTABLE, INVALID),
    "score_not_found": (HTTPStatus.NOT_FOUND, INVALID),
    "body_too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, INVALID),
    "invalid_value": (HTTPStatus.UNPROCESSABLE_ENTITY, INVALID),
    "deadline_too_short": (HTTPStatus.UNPROCESSABLE_ENTITY, INVALID),
    "idempotency_key_reused": (HTTPStatus.UNPROCESSABLE_ENTITY, INVALID),
    "queue_full": (HTTPStatus.TOO_MANY_REQUESTS, OVERLOADED),
    "rate_limit_exceeded": (HTTPStatus.TOO_MANY_REQUESTS, RATE_LIMIT),  # the quota of the API key is used up
    "loading": (HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE),
    "draining": (HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE),  # a job that was running gets it too
    "no_worker": (HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE),
    "broker_away": (HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE),
    "engine_failed": (HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE),
    "engine_stopped": (HTTPStatus.SERVICE_UNAVAILABLE, UNAVAILABLE),
    # a job ends without an answer
    "impossible": (HTTPStatus.UNPROCESSABLE_ENTITY, INVALID),  # what is given has probability zero under the model
    "cancelled": (HTTPStatus.CONFLICT, INVALID),
    "poison": (HTTPStatus.INTERNAL_SERVER_ERROR, SERVER),  # every engine that tried the job failed
    "lost": (HTTPStatus.INTERNAL_SERVER_ERROR, SERVER),  # Redis has lost its data
    "internal_error": (HTTPStatus.INTERNAL_SERVER_ERROR, SERVER),
}
RETRY_AFTER_SECONDS = 5
# a message may quote what the client sent, but not a megabyte of it
LONGEST_QUOTE = 200

_UNION_MEMBER = re.compile(r"str|constrained-int|list\[.*\]|\[key\]")
_NOT_AN_OBJECT = {"model_type", "model_attributes_type", "dict_type", "missing"}


class ApiError(HTTPException):
    """An error of the table, with a message for people; `param` names the field of the request that is wrong."""

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        status, self.kind = CODES[code]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            retry_after = RETRY_AFTER_SECONDS
        retry = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        if status == HTTPStatus.CONFLICT:
            retry["x-should-retry"] = "false"  # OpenAI's clients would try again
        super().__init__(status, message, {**retry, **(headers or {})})
        self.code, self.message, self.param = code, message, param


class RefusedError(ApiError):
    """A request is refused before anything is queued."""


class JobError(ApiError):
    """A job that was accepted ends without an answer."""


def job_error(failure: Failed) -> JobError:
    """The error for a log that ends with a failure."""
    return JobError("internal_error" if failure.reason == "engine" else failure.reason, failure.message)


def invalid(message: str, param: str | None) -> RefusedError:
    """The error for a value that this server can never serve."""
    return RefusedError("invalid_value", message, param)


def quoted(name: str) -> str:
    """A name that the client chose, short enough for a message."""
    return repr(name if len(name) <= LONGEST_QUOTE else name[:LONGEST_QUOTE] + "…")


def install_error_answers(app: FastAPI, metrics: Metrics) -> None:
    """Make all errors of `app` answer in one form, and count refused requests."""

    def answer(request: Request, error: Exception) -> JSONResponse:
        """The answer to an error. OpenAI's clients of texts expect 400 where we say 422 elsewhere."""
        if isinstance(error, RequestValidationError):  # of a path, a query or a header: `loc` begins with which
            error = first_complaint([{**each, "loc": each["loc"][1:]} for each in error.errors()])
        if isinstance(error, BrokerAwayError):
            error = RefusedError("broker_away", str(error))
        elif isinstance(error, KeyReusedError):
            error = RefusedError("idempotency_key_reused", f"Idempotency-Key: {error}", "Idempotency-Key")
        if isinstance(error, RefusedError):
            count_rejection(metrics, request, error)
        response = error_response(error)
        path = request.scope["path"]
        of_text = path.startswith("/v1/") and not path.startswith("/v1/images/")
        if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY and of_text:
            response.status_code = HTTPStatus.BAD_REQUEST
        return response

    for kind in (HTTPException, RequestValidationError, BrokerError, Exception):
        app.add_exception_handler(kind, answer)


def count_rejection(metrics: Metrics, request: Request, error: RefusedError) -> None:
    """Count a refused request, if it was to become a job: for its model, where that is known (`request.state`)."""
    metrics, path = getattr(request.state, "metrics", metrics), request.scope["path"]
    if request.method == "POST" and path in ENDPOINTS.values():
        metrics.count_request(path, "rejected", error.code)
        log_rejection(error.code, metrics.model, path)


def error_response(error: Exception) -> JSONResponse:
    """The HTTP response for an error."""
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    return JSONResponse(error_answer(error).model_dump(), status, headers)


def error_answer(error: Exception) -> ErrorAnswer:
    """The error object for any exception."""
    if isinstance(error, ApiError):
        answer = ErrorObject(message=error.message, type=error.kind, param=error.param, code=error.code)
    elif isinstance(error, HTTPException):
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        answer = ErrorObject(message=str(error.detail), type=INVALID, param=None, code=code)
    else:
        answer = ErrorObject(message="internal error", type=SERVER, param=None, code="internal_error")
    return ErrorAnswer(error=answer)


def first_complaint(errors: Sequence[Mapping[str, Any]], fields: Container[str] = ()) -> RefusedError:
    """What is wrong with the first field that pydantic names.

    A message about the body as a whole begins with the name of one of its `fields`.

    Where a field may have several types there is an error for each: the deepest errors count.
    """
    own = [error for error in errors if error["loc"][:1] == errors[0]["loc"][:1]]
    depth = max(len(error["loc"]) for error in own)
    deepest = [error for error in own if len(error["loc"]) == depth]
    param = _param_of(deepest[0])
    same_field = [error for error in deepest if _param_of(error) == param]
    message = " or ".join(dict.fromkeys(_message_of(error) for error in same_field))
    if param is not None:
        return invalid(message if message.startswith(f"{param} ") else f"{param}: {message}", param)
    first_word = message.split()[0]
    return invalid(message, first_word if first_word in fields else None)


def _param_of(error: Mapping[str, Any]) -> str | None:
    """The path of the field, without the names of union members that pydantic puts into it."""
    path = [str(part) for part in error["loc"]]
    named = len(path) if error["type"] == "extra_forbidden" else 1
    kept = [part for place, part in enumerate(path) if place < named or not _UNION_MEMBER.fullmatch(part)]
    return ".".join(kept)[:LONGEST_QUOTE] if kept else None


def _message_of(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such field"
    if error["type"] in _NOT_AN_OBJECT and not error["loc"]:
        return "the body must be a JSON object"
    return str(error["msg"]).removeprefix("Value error, ")
