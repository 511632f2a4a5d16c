"""From the messages of a chat to a prompt, by the template of a model, in a process that can be killed."""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from unmask_service import chat_renderer
from unmask_service.chat_renderer import MEMORY_BYTES, PROCESSOR_SECONDS

# the timer of the process ends what computes; this ends what does anything else
WALL_SECONDS = 2.0


class ChatTemplateError(ValueError):
    """A template raises, does what it may not, or does not come to an end."""


class ChatRenderer:
    """Renders templates one after the other, in a process that starts with the first one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, template: str, context: Mapping[str, Any]) -> str:
        """Render a template. It blocks, for a few milliseconds as a rule. Raises ChatTemplateError."""
        request = json.dumps({"template": template, "context": context}).encode() + b"\n"
        with self._lock:
            reply = self._exchange(request)
        if reply is None:
            raise ChatTemplateError(
                f"it needs more than {PROCESSOR_SECONDS} s of processor time, or {MEMORY_BYTES >> 20} MiB of memory"
            )
        answer: dict[str, str] = json.loads(reply)
        if "error" in answer:
            raise ChatTemplateError(answer["error"])
        return answer["text"]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.communicate()

    def _exchange(self, request: bytes) -> bytes | None:
        """Send a request to the process and read its answer; None where the process ends instead."""
        process = self._running()
        watchdog = threading.Timer(WALL_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 — for the type checker
            process.stdin.write(request)
            process.stdin.flush()
            reply = process.stdout.readline()
        except BrokenPipeError:
            reply = b""
        finally:
            watchdog.cancel()
        if not reply.endswith(b"\n"):
            self.close()
            return None
        return reply

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            # isolated: neither the environment nor the working folder changes what it imports
            words = [sys.executable, "-I", str(chat_renderer.__file__)]
            self._process = subprocess.Popen(  # noqa: S603 — our own file
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self._process
