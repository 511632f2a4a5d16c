"""lm-evaluation-harness on a running server: a model of the harness that asks `/score` and `/generate`.

The harness finds no models of other packages by itself, so this registers ours and hands over to its command line:

    python -m unmask_bench.harness run --model unmask --model_args base_url=http://127.0.0.1:8000 --tasks …
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry

NAME = "unmask"
PATIENCE_SECONDS = 3600.0


class Unmask(LM):
    """A model on a server of Unmask.

    A log-likelihood is minus the answer of `/score`: with the estimator `orders` a lower bound in expectation, whose
    standard error stands behind the arguments in the log of samples; with `left_to_right` the log-probability along
    that order, of which alone it can be said whether it is the greedy one.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        model: str | None = None,
        api_key: str | None = None,
        estimator: str = "orders",
        budget: int | None = None,
        seed: int = 1234,
        num_concurrent: int = 8,
        max_gen_toks: int = 256,
        **_: Any,  # noqa: ANN401 — the harness adds batch sizes and devices, which a server has of its own
    ) -> None:
        super().__init__()
        self._url, self._headers = (
            base_url.rstrip("/"),
            {} if api_key is None else {"Authorization": f"Bearer {api_key}"},
        )
        self._common = {"seed": seed} | ({} if model is None else {"model": model})
        self._score: dict[str, Any] = {"estimator": estimator} | ({} if budget is None else {"budget": budget})
        if estimator == "left_to_right":
            self._score |= {"logprobs": 1, "per_token": True}
        self._concurrent, self._max_tokens = int(num_concurrent), int(max_gen_toks)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation given its context."""
        return self._each(requests, lambda ask, args: self._likelihood(ask, args[0], args[1]))

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The log-likelihood of each whole text; a long one is cut into windows by the server."""
        return [value for value, _ in self._each(requests, lambda ask, args: self._likelihood(ask, "", args[0]))]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The text that follows each context, up to its stop strings."""
        return self._each(requests, lambda ask, args: self._text(ask, args[0], dict(args[1])))

    @property
    def tokenizer_name(self) -> str:
        return NAME

    async def _likelihood(self, ask: "Ask", context: str, continuation: str) -> "Answered":
        answer = await ask("/score", {"prompt": context, "input": continuation} | self._score | self._common)
        likeliest = answer.get("token_likeliest")
        greedy = likeliest is not None and all(
            token == classes[0][0]
            for (_, token, _, _), (_, classes) in zip(answer["token_nats"], likeliest, strict=True)
        )
        return (-answer["nats"], greedy), f"standard_error={answer['standard_error']:.6g}"

    async def _text(self, ask: "Ask", context: str, settings: dict[str, Any]) -> "Answered":
        until = settings.get("until") or []
        body = {
            "prompt": context,
            "max_tokens": settings.get("max_gen_toks", settings.get("max_tokens", self._max_tokens)),
            "temperature": settings.get("temperature", 0) if settings.get("do_sample", True) else 0,
            "stop": [until] if isinstance(until, str) else [*until],
        }
        body |= {name: settings[name] for name in ("top_p", "top_k") if name in settings}
        return (await ask("/generate", body | self._common))["choices"][0]["text"], None

    def _each(self, requests: Sequence[Instance], work: "Callable[[Ask, Any], Awaitable[Answered]]") -> list[Any]:
        """Do all requests, some at a time; what there is to say of an answer goes behind the request's arguments."""

        async def run() -> list["Answered"]:
            places = asyncio.Semaphore(self._concurrent)
            async with httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=PATIENCE_SECONDS) as client:

                async def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
                    async with places:
                        response = await client.post(path, json=body)
                    if response.is_error:
                        raise RuntimeError(f"{path}: {response.status_code}: {response.text[:500]}")
                    answer: dict[str, Any] = response.json()
                    return answer

                return await asyncio.gather(*(work(ask, request.args) for request in requests))

        answers = asyncio.run(run())
        for request, (_, remark) in zip(requests, answers, strict=True):
            if remark is not None:
                request.arguments = (*request.args, remark)
        return [value for value, _ in answers]


Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
Answered = tuple[Any, str | None]  # an answer, and a remark for the log of samples


def register() -> None:
    """Let the harness know the model by its name."""
    if NAME not in model_registry:
        model_registry.register(NAME, target=Unmask)


def main() -> None:
    """The harness' own command line."""
    from lm_eval.__main__ import cli_evaluate

    register()
    sys.exit(cli_evaluate())


if __name__ == "__main__":
    main()
