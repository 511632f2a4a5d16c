"""Tokens as text: what they add to what is before them, in answers, in streams and with their log-probabilities."""

import dataclasses
import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from unmask_diffusion import Plan, answer_of
from unmask_model_store.importers.tokenizers import read_tokenizer
from unmask_service.api.logprobs import pieces_of
from unmask_service.api.service import Vocabulary
from unmask_service.api.text_stream import MASKED, TextStream

from tests.helpers import END_TOKEN, ToyModel, byte_tokenizer, code_table, markov_model, plan_for
from tests.helpers_server import Body, Server, token_ids
from tests.service.test_completions import chunks_of, complete, joined

GOLDEN = Path(__file__).parents[1] / "golden"
TALES = Path(__file__).parents[2] / "model_store" / "bundles" / "tales" / "tokenizer.json"


def llama_tokenizer(tokens: int = 260) -> Tokenizer:
    """A tokenizer of Llama's kind: blanks are a part of words, the first one is dropped in decoding; bytes are left."""
    bytes_of_euro = ["<0xE2>", "<0x82>", "<0xAC>"]
    pieces = ["▁", "▁fox", "es", "▁ran", ".", "▁a", *bytes_of_euro, *"fox"]
    pieces += [f"{'▁' * (i % 2)}w{i}" for i in range(tokens - len(pieces) - 1)] + [END_TOKEN]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([END_TOKEN])
    return tokenizer


def word_pieces() -> Tokenizer:
    """A tokenizer of BERT's kind: blanks come between words, and pieces of words have marks."""
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "fox": 1, "##es": 2, "ran": 3, ".": 4, "a": 5}))
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "llama": llama_tokenizer,
    "word pieces": word_pieces,
    "bytes": byte_tokenizer,
    "tales": lambda: Tokenizer.from_file(str(TALES)),
    "tiny_L": lambda: read_tokenizer(GOLDEN / "tiny_L", 384, fewer=True),
    "tiny_R": lambda: read_tokenizer(GOLDEN / "tiny_R", 384, fewer=True),
}


def model_of(tokenizer: Tokenizer) -> ToyModel:
    classes = tokenizer.get_vocab_size()
    return dataclasses.replace(markov_model(6, 16, 1), sub_tokenizer=code_table(classes, 1), tokenizer=tokenizer)


def test_tokens_of_llamas_kind_keep_their_blanks() -> None:
    tokenizer = llama_tokenizer()
    vocabulary = Vocabulary(model_of(tokenizer))
    ids = [5, 1, 2, 3, 4]
    assert [vocabulary.text_of(token) for token in ids] == [" a", " fox", "es", " ran", "."]
    assert "".join(vocabulary.text_of(token) or "" for token in ids) == " " + tokenizer.decode(ids)


def streamed(model: ToyModel, plan: Plan, token_ids: list[int]) -> list[str]:
    """The text of a sample whose tokens are revealed one by one, in a random order."""
    stream = TextStream(model, plan, 0)
    order = [*zip(plan.generated, token_ids, itertools.repeat(None))]
    random.Random(1).shuffle(order)
    return [stream.take(), *(stream.take([each]) for each in order)]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_pieces_of_a_stream_are_the_text_of_the_answer(kind: str) -> None:
    """And that is what the tokens add to the prompt's text."""
    tokenizer = TOKENIZERS[kind]()
    model, draw = model_of(tokenizer), random.Random(kind)
    for prompt, _ in itertools.product(([], [5], [1, 3]), range(20)):
        plan = dataclasses.replace(plan_for(model, max_tokens=8), canvas=(*prompt, *8 * [None]))
        plan = dataclasses.replace(plan, generated=range(len(prompt), len(prompt) + 8))
        ids = [draw.randrange(tokenizer.get_vocab_size()) for _ in range(8)]
        sample = answer_of(model, plan, 0, ids)
        assert sample is not None
        assert sample.text is not None
        before, whole = (tokenizer.decode(each, skip_special_tokens=False) for each in (prompt, prompt + ids))
        assert before + sample.text == whole
        assert "".join(streamed(model, plan, ids)) == sample.text
        pieces, offsets = pieces_of(tokenizer, ids, sample.text, continues=bool(prompt))
        assert "".join(pieces) == sample.text
        assert offsets == [len("".join(pieces[:i])) for i in range(8)]


def test_a_character_that_the_prompt_begins_is_not_ended_by_the_answer() -> None:
    model = model_of(llama_tokenizer())
    plan = dataclasses.replace(plan_for(model, max_tokens=3), canvas=(6, None, None, None), generated=range(1, 4))
    assert "".join(streamed(model, plan, [7, 8, 1])) == "\ufffd\ufffd fox"


def test_stop_strings_may_begin_with_the_blank_of_the_first_token() -> None:
    model = model_of(llama_tokenizer())
    plan = plan_for(model, max_tokens=3, stop=[" fox"])
    began = dataclasses.replace(plan, canvas=(5, None, None, None), generated=range(1, 4))
    for each, text in ((plan, "fox.es"), (began, "")):
        sample = answer_of(model, each, 0, [1, 4, 2])
        assert sample is not None
        assert (sample.text, "".join(streamed(model, each, [1, 4, 2]))) == (text, text)


def test_the_first_token_of_a_model_is_no_text_before() -> None:
    model = dataclasses.replace(model_of(llama_tokenizer()), bos_token_id=259, add_bos="prompt")
    plan = plan_for(model, max_tokens=2)
    assert plan.canvas == (259, None, None)
    assert "".join(streamed(model, plan, [1, 3])) == "fox ran"


# --- over HTTP -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle `writer` with a tokenizer of Llama's kind."""
    copy = Path(shutil.copytree(bundles / "writer", tmp_path_factory.mktemp("blanks") / "blanks"))
    llama_tokenizer().save(str(copy / "tokenizer.json"))
    return copy


@pytest.fixture(scope="module")
def blanks(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        yield server.until_ready()


def test_answers_continue_the_prompt(blanks: Server) -> None:
    tokenizer = llama_tokenizer()
    seen = set()
    for seed in range(6):
        body: Body = {"prompt": [5, 1], "max_tokens": 6, "seed": seed}
        answer = blanks.generate(**body)
        (ids,) = token_ids(answer)
        (choice,) = answer["choices"]
        assert "a fox" + choice["text"] == tokenizer.decode([5, 1, *ids], skip_special_tokens=False)
        seen.add(choice["text"][:1])
        told: Body = complete(blanks, **body, logprobs=1)["choices"][0]
        assert told["text"] == choice["text"]
        assert "".join(told["logprobs"]["tokens"]) == choice["text"]
        assert joined(chunks_of(blanks, **body)) == [choice["text"]]
        echoed = joined(chunks_of(blanks, **body, echo=True, logprobs=0))
        assert echoed == [complete(blanks, **body, echo=True)["choices"][0]["text"]] == ["a fox" + choice["text"]]
        infilled = complete(blanks, **body, suffix="fox")["choices"][0]["text"]
        assert joined(chunks_of(blanks, **body, suffix="fox")) == [infilled]
        (alone,) = token_ids(begun := blanks.generate(max_tokens=6, seed=seed))
        assert begun["choices"][0]["text"] == tokenizer.decode(alone, skip_special_tokens=False)
        if " w" in choice["text"][1:]:
            stopped = complete(blanks, **body, stop=" w")["choices"][0]
            assert (stopped["text"], stopped["finish_reason"]) == (choice["text"].partition(" w")[0], "stop")
            assert joined(chunks_of(blanks, **body, stop=" w")) == [stopped["text"]]
    assert " " in seen
    assert len(seen) > 1


def test_a_diffusing_stream_shows_blanks_behind_masks(blanks: Server) -> None:
    chunks = chunks_of(blanks, prompt=[5], max_tokens=6, seed=2, diffusing=True)
    shown = [choice["text"] for chunk in chunks for choice in chunk["choices"]]
    assert shown[0] == 6 * MASKED
    assert any(f"{MASKED} " in each for each in shown)
    assert shown[-1] == complete(blanks, prompt=[5], max_tokens=6, seed=2)["choices"][0]["text"]
