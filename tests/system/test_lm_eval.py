"""The real lm-evaluation-harness on a chain whose probabilities are known; it is installed by the extra `eval`."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from unmask_model_store import MarkovConfig, write_bundle

from tests.helpers import byte_tokenizer, random_chain
from tests.helpers_server import Server

pytestmark = pytest.mark.system
pytest.importorskip("lm_eval")

TEXTS = [
    "once upon a time",
    "there was",
    "a fox",
    "who went",
    "to the sea",
    "and back",
    "again",
    "in a boat",
    "of",
    "xy",
]
TASK = """task: chain
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: {kind}
doc_to_text: "{{{{text[:1]}}}}"
doc_to_target: "{{{{text[{start}:]}}}}"
target_delimiter: ""
metric_list:
  - metric: {metric}
metadata:
  version: 1
"""
PLUGIN = ["unmask_bench.harness", "run", "--model", "unmask", "--model_args"]
COMPLETIONS = ["lm_eval", "run", "--model", "local-completions", "--model_args"]


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain over the tokens of a tokenizer without merges."""
    folder = tmp_path_factory.mktemp("letters") / "letters"
    tokenizer = byte_tokenizer(merges=())
    classes = tokenizer.get_vocab_size()
    initial, transition = random_chain(classes, seed=4)
    config = MarkovConfig(
        architecture="markov",
        length=24,
        vocabulary_size=classes,
        sub_tokens_per_token=2,
        base=17,
        end_token_id=classes - 1,
    )
    write_bundle(folder, config, {"log_initial": initial.float(), "log_transition": transition.float()}, tokenizer)
    return folder


def truth(text: str, given: int) -> float:
    """The log-probability of a text behind its first characters."""
    tokenizer = byte_tokenizer(merges=())
    initial, transition = random_chain(tokenizer.get_vocab_size(), seed=4)
    ids = tokenizer.encode(text).ids
    steps = [float(initial[ids[0]]), *(float(transition[a, b]) for a, b in itertools.pairwise(ids))]
    return math.fsum(steps[given:])


@pytest.mark.parametrize(
    ("command", "kind", "metric"),
    [
        (PLUGIN, "loglikelihood_rolling", "bits_per_byte"),
        (PLUGIN, "loglikelihood", "perplexity"),
        (COMPLETIONS, "loglikelihood", "perplexity"),
    ],
)
def test_its_numbers_are_the_truth(letters: Path, tmp_path: Path, command: list[str], kind: str, metric: str) -> None:
    given = 0 if kind == "loglikelihood_rolling" else 1
    data, out = tmp_path / "data.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "chain.yaml").write_text(TASK.format(data=data, kind=kind, metric=metric, start=given))
    with Server(letters) as server:
        server.until_ready()
        where = f"base_url={server.url}"
        if command is COMPLETIONS:
            where += "/v1/completions,model=letters,tokenizer_backend=remote"
        words: list[str | Path] = [
            sys.executable,
            "-m",
            *command,
            where,
            "--tasks",
            "chain",
            "--include_path",
            tmp_path,
        ]
        done = subprocess.run(
            [*words, "--output_path", out, "--log_samples"],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = out.rglob("results*.json")
    found = json.loads(results.read_text())["results"]["chain"][f"{metric},none"]
    logs = [truth(text, given) for text in TEXTS]
    if metric == "bits_per_byte":
        expected = -math.fsum(logs) / math.log(2) / sum(len(text) for text in TEXTS)
    else:
        expected = math.exp(-math.fsum(logs) / len(TEXTS))
    assert found == pytest.approx(expected, rel=1e-3)
    if command is PLUGIN:
        (samples,) = out.rglob("samples*.jsonl")
        assert all("standard_error=" in line for line in samples.read_text().splitlines())
