"""The official samplers of LLaDA, Dream and dllm at temperature 0, step by step (tests/golden)."""

import json
from pathlib import Path
from typing import Any

import pytest
from unmask_diffusion import ActiveSample, GenerationRequest, Reveal, evaluate, make_plan
from unmask_model_store import Bundle, open_bundle
from unmask_model_store.importers import Request, import_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
MEASURES = {"maskgit_plus": "confidence", "topk_margin": "margin", "entropy": "entropy"}


def traces(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads((GOLDEN / f"tiny_{name}_traces.json").read_text())["traces"]
    return found


CASES = [(name, title) for name in "LRG" for title in traces(name) if not title.startswith("origin")]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("imported")
    found = {}
    for name in "LRG":
        mask_id = {"G": 329}.get(name)  # no file says it
        import_checkpoint(Request(GOLDEN / f"tiny_{name}", folder / name, mask_id=mask_id))
        found[name] = open_bundle(folder / name)
    return found


def request_of(trace: dict[str, Any]) -> dict[str, Any]:
    """The request that stands for the arguments of an official sampler."""
    given, tokens = trace["arguments"], {}
    if trace["sampler"].startswith("llada"):
        tokens = {"max_tokens": given["gen_length"]}
        sampler = {"name": "confidence", "cut": "llada", "block_length": given["block_length"]}
        sampler |= {each: True for each in ("logits_eos_inf", "confidence_eos_eot_inf") if given[each]}
    elif trace["sampler"].startswith("dream"):
        tokens = {"max_tokens": given["max_new_tokens"], "top_k": given["top_k"] or 0, "top_p": given["top_p"] or 1.0}
        sampler = {"name": MEASURES[given["alg"]], "cut": "dream", "eps": given["eps"]}
    else:
        tokens = {"max_tokens": given["max_new_tokens"]}
        sampler = {"name": "confidence", "cut": "dllm", "block_length": given["block_size"]}
    sampler |= {"guidance": given["cfg_scale"]} if given.get("cfg_scale") else {}
    return {"prompt": trace["prompt"], "temperature": 0, "sampler": {**sampler, "steps": given["steps"]}, **tokens}


@pytest.mark.parametrize(("name", "title"), CASES)
def test_the_trace_is_the_official_one(bundles: dict[str, Bundle], name: str, title: str) -> None:
    bundle, trace = bundles[name], traces(name)[title]
    plan = make_plan(bundle, GenerationRequest.model_validate(request_of(trace)))
    steps = [sorted((position, token) for position, token, *_ in step["revealed"]) for step in trace["steps"]]
    active = ActiveSample.start(bundle, plan, 0)
    log: list[Reveal] = []
    while not active.finished:
        for entry in active.apply(evaluate(bundle, [active])[0]):
            assert isinstance(entry, Reveal)
            log.append(entry)
    found = [
        [(position, int(bundle.sub_tokenizer.decode(active.digits[position]))) for position, _, _ in reveal.sub_tokens]
        for reveal in log
    ]
    expected = [step for step in steps if step]  # idle steps cost nothing here
    assert found == expected[: len(found)]
    assert len(found) + active.needless == len(expected)  # a block with an end token ends the sample
    assert plan.idle_steps == len(steps) - len(expected) or name == "G"
