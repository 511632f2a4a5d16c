"""Sends requests to a server and records what the client sees, by the client's clock."""

import asyncio
import json
import re
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import httpx

from unmask_bench import LoadError

CONNECT_SECONDS = 10.0
HEADERS = {"Content-Type": "application/json"}
COMPLETED: Final = "completed"
LEFT: Final = "left"

_FIELD = re.compile(rb"^(event|data): ?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Call:
    """One request to send."""

    body: bytes  # of `POST /generate`, JSON
    streamed: bool  # whether it asks for events
    leave_after: int | None = None  # unmask events after which the client disconnects; None: never


@dataclass
class Record:
    """One request as its client saw it. Times in seconds, from sending; None where they were not seen."""

    sent: float  # when it was sent, on `time.perf_counter`'s clock
    outcome: str = (
        ""  # "completed", "left" (the client disconnected on purpose), or the kind of error: "429 queue_full"
    )
    seconds: float = 0.0  # to the last byte
    planned_at: float | None = None  # to the event `start`; streams only
    first_unmask: float | None = None  # to the first event `unmask`; streams only
    between_unmasks: "array[float]" = field(default_factory=lambda: array("d"))  # of the same sample; streams only
    unmasks: int = 0  # number of `unmask` events that were read
    planned: int = 0  # network evaluations that `start` announced
    masked: int = 0  # sub-tokens that `start` announced
    eta: float | None = None  # forecast of `start`: seconds from there to the end
    retry_after: float | None = None  # of a refusal
    message: str = ""  # of an error
    answer: dict[str, Any] | None = None  # of a completed request, without its tokens

    @property
    def completed(self) -> bool:
        return self.outcome == COMPLETED

    def counted(self, part: str, name: str) -> float:
        """Return a number of the answer, for example ("usage", "completion_tokens"); 0 without an answer."""
        return self.answer[part][name] if self.answer else 0

    def complete(self, answer: dict[str, Any]) -> None:
        """Keep the numbers of an answer; its tokens are dropped, since a long test has many."""
        self.answer = {part: answer[part] for part in ("usage", "sampling", "timings")}
        self.outcome = COMPLETED

    def fail(self, where: str, error: dict[str, Any]) -> None:
        self.outcome, self.message = f"{where} {error['code']}", error["message"]


class Events:
    """Reads a stream's events into a record, however they are cut into chunks."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.ended = False
        self._rest = b""
        self._last: dict[int, float] = {}

    def feed(self, chunk: bytes, elapsed: float) -> None:
        """Read a chunk that arrived `elapsed` seconds after sending."""
        blocks = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        self._rest = blocks.pop()
        for block in blocks:
            fields = dict(_FIELD.findall(block))
            if b"event" in fields:
                self._event(fields[b"event"], json.loads(fields[b"data"]), elapsed)

    def _event(self, name: bytes, data: dict[str, Any], elapsed: float) -> None:
        record = self.record
        match name:
            case b"unmask":
                self._unmask(data["index"], elapsed)
            case b"start":
                record.planned_at = elapsed
                record.planned, record.masked = data["network_evaluations"], data["masked"]
                record.eta = None if data.get("eta_ms") is None else data["eta_ms"] / 1000
            case b"done":
                record.complete(data)
            case b"error":
                record.fail("stream", data["error"])
        self.ended = name in (b"done", b"error")

    def _unmask(self, sample: int, elapsed: float) -> None:
        record = self.record
        record.unmasks += 1
        if record.first_unmask is None:
            record.first_unmask = elapsed
        if sample in self._last:
            record.between_unmasks.append(elapsed - self._last[sample])
        self._last[sample] = elapsed


class LoadClient:
    """Sends calls to one server, any number at a time."""

    def __init__(self, http: httpx.AsyncClient, seconds: float) -> None:
        self.http = http
        self.seconds = seconds

    async def send(self, call: Call) -> Record:
        """Send a call and follow it to its end. Whatever goes wrong becomes the record's outcome."""
        record = Record(time.perf_counter())
        try:
            async with asyncio.timeout(self.seconds):
                await self._send(call, record)
        except TimeoutError:
            record.outcome = "timeout"
        except httpx.HTTPError as error:
            record.outcome, record.message = f"connection {type(error).__name__}", str(error)
        except (ValueError, KeyError, TypeError):
            record.outcome = "malformed answer"
        record.seconds = time.perf_counter() - record.sent
        return record

    async def _send(self, call: Call, record: Record) -> None:
        async with self.http.stream("POST", "/generate", content=call.body, headers=HEADERS) as response:
            if response.status_code != HTTPStatus.OK:
                self._refused(response, await response.aread(), record)
            elif call.streamed:
                await self._follow(response, record, call.leave_after)
            else:
                record.complete(json.loads(await response.aread()))

    async def _follow(self, response: httpx.Response, record: Record, leave_after: int | None) -> None:
        events = Events(record)
        async for chunk in response.aiter_raw():
            events.feed(chunk, time.perf_counter() - record.sent)
            if leave_after is not None and record.unmasks >= leave_after and not events.ended:
                record.outcome = LEFT
                return
        if not events.ended:
            record.outcome = "stream cut off"

    def _refused(self, response: httpx.Response, content: bytes, record: Record) -> None:
        wait = response.headers.get("retry-after", "")
        record.retry_after = float(wait) if wait.isdecimal() else None
        try:
            record.fail(str(response.status_code), json.loads(content)["error"])
        except (ValueError, KeyError, TypeError):
            record.outcome = f"{response.status_code} {response.reason_phrase}"


@asynccontextmanager
async def connect(url: str, seconds: float, api_key: str | None = None) -> AsyncIterator[LoadClient]:
    """Open a client of the server at `url`; a request may take `seconds`."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=timeout, headers=_key(api_key)) as http:
        yield LoadClient(http, seconds)


def served_model(url: str, api_key: str | None = None) -> dict[str, Any]:
    """Return the server's card of its model.

    Raises:
        LoadError: the server cannot be reached, wants another API key, is no Unmask server, or is not ready.
    """
    shown = without_credentials(url)
    try:
        ready = httpx.get(f"{url}/ready", timeout=CONNECT_SECONDS)
        models = httpx.get(f"{url}/v1/models", timeout=CONNECT_SECONDS, headers=_key(api_key))
        if models.status_code == HTTPStatus.UNAUTHORIZED:
            wants = "refuses the API key" if api_key else "wants an API key"
            raise LoadError(f"{shown} {wants}: give one with --api-key, or in UNMASK_API_KEY")
        if ready.is_success:
            card: dict[str, Any] = models.raise_for_status().json()["data"][0]
            return card
        message = ready.json()["error"]["message"]
    except LoadError:
        raise
    except (httpx.HTTPStatusError, ValueError, LookupError, TypeError) as error:
        raise LoadError(f"{shown} does not answer as an Unmask server does") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise LoadError(f"{shown} cannot be reached: {error}; is `unmask serve` running there?") from error
    raise LoadError(f"{shown} is not ready: {message}")


def without_credentials(url: str) -> str:
    """Remove `user:password@` from a URL, so that it can be printed."""
    return re.sub(r"//[^/?#]*@", "//", url)


def _key(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
