"""The process that renders chat templates. It runs as a script, and has little time, little memory and no files.

A template comes with a model's files, and may be hostile or merely endless. jinja2's sandbox keeps it from attributes
and from changing what it is given; the system's limits end it where the sandbox has none: a timer of processor time
kills the process, and memory and open files are bounded. Each line of the input is a request in JSON, each line of the
output its answer.
"""

import contextlib
import json
import resource
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

PROCESSOR_SECONDS = 0.1  # of one template
MEMORY_BYTES = 512 << 20
MOST_CHARACTERS = 1 << 20  # of a rendered text


class GenerationBlocks(Extension):
    """`{% generation %} … {% endgeneration %}` marks what training looks at; here it is only its contents."""

    tags = {"generation"}  # noqa: RUF012 — jinja2's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message: str) -> NoReturn:
    """What templates call to refuse messages."""
    raise TemplateError(message)


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:  # noqa: ANN401
    """The filter `tojson` as templates know it: without HTML's escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def environment() -> ImmutableSandboxedEnvironment:
    """jinja2 as transformers sets it up, which templates are written for."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, LoopControlExtension]
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    return made


@lru_cache(maxsize=8)
def compiled(template: str) -> Template:
    """A template, compiled once."""
    return environment().from_string(template)


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template, but no more than `MOST_CHARACTERS`."""
    parts: list[str] = []
    length = 0
    for part in compiled(template).generate(**context):
        length += len(part)
        if length > MOST_CHARACTERS:
            raise TemplateError(f"it writes more than {MOST_CHARACTERS} characters")
        parts.append(part)
    return "".join(parts)


def main() -> None:
    """Answer requests until the input ends."""
    with contextlib.suppress(
        TemplateError
    ):  # jinja2 imports some of itself with the first template and the first error
        compiled("{{ raise_exception(messages | map(attribute='content') | join | tojson) }}").render(messages=[])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)  # its signal ends the process
        try:
            answer = {"text": render(**request)}
        except Exception as error:  # templates raise anything
            answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
