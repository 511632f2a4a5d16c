"""What all tests share: reproducible examples, and servers that start once, when the first test asks for them."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn
from unmask_diffusion import NetworkShape
from unmask_model_store import ImageConfig, MarkovConfig, PrimeConfig, TableConfig, UNetConfig, write_bundle

from tests.helpers import (
    END_TOKEN,
    PICTURES,
    SCRIBES_TEMPLATE,
    SCRIBES_TEXT,
    byte_tokenizer,
    random_chain,
    random_network,
    random_table,
    random_unet,
)
from tests.helpers_command_line import Run, command_line
from tests.helpers_server import Server

# Examples are drawn the same way each time; a slow machine is no reason to fail.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")

# Triton looks at this when it is imported: without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# one thread: the tensors here are tiny, and other processes want the cores too
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="write tests/service/recording.json anew")


@pytest.fixture(autouse=True)
def _subnormal_numbers() -> Iterator[None]:
    """Undo what training sets for its whole process: other tests' floats have subnormal numbers."""
    yield
    torch.set_flush_denormal(False)


# They share servers that are slow to start.
SERVER_FOLDERS = ("tests/system/", "tests/service/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of servers first: in a parallel run, idle processes take over tests from the end of the list."""

    def place(item: pytest.Item) -> int:
        found = (i for i, folder in enumerate(SERVER_FOLDERS) if item.nodeid.startswith(folder))
        return next(found, len(SERVER_FOLDERS))

    items.sort(key=place)


TABLE_SEED = 31
CHAIN_SEED = 32


# pictures of 4 x 4 pixels; the codes of the classes are 00, 01, 02 and 10
PIXELS = ImageConfig(
    height=4, width=4, channels=1, palette=[(0, 0, 0, 0), (255, 255, 255, 255), (255, 0, 0, 255), (0, 0, 0, 255)]
)


def possible_table() -> torch.Tensor:
    """The table that is served: 4 classes, 2 tokens; a sequence never begins with class 3."""
    table = random_table(4, 2, TABLE_SEED)
    table[3, :] = -torch.inf
    return table.flatten().log_softmax(0).view(4, 4)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles: `writer` (a network with a tokenizer), `scribe`, `table`, `chain`, …, `pixels`, `photo`: a U-Net."""
    folder = tmp_path_factory.mktemp("bundles")
    _write_writer(folder / "writer")
    _write_photo(folder / "photo")
    _write_scribe(folder / "scribe")
    table = TableConfig(architecture="table", length=2, vocabulary_size=4, sub_tokens_per_token=2, base=2)
    write_bundle(folder / "table", table, {"log_probabilities": possible_table().float()})
    for name, length, classes in (("chain", 64, 4), ("long-chain", 1024, 8)):
        initial, transition = random_chain(classes, CHAIN_SEED)
        markov = MarkovConfig(
            architecture="markov", length=length, vocabulary_size=classes, sub_tokens_per_token=2, base=3
        )
        tensors = {"log_initial": initial.float(), "log_transition": transition.float()}
        write_bundle(folder / name, markov, tensors)
        if name == "chain":
            write_bundle(
                folder / "pixels", markov.model_copy(update={"length": 16, "image": PIXELS, "clock": 3}), tensors
            )
    return folder


def _write_writer(folder: Path) -> None:
    """260 tokens in 2 digits of base 17, so that some codes name no token; the end token is likely."""
    tokenizer = byte_tokenizer()
    end = tokenizer.token_to_id(END_TOKEN)
    classes = tokenizer.get_vocab_size()
    network = random_network(NetworkShape(24, classes, 2, 17, hidden_size=32, blocks=2, heads=4))
    with torch.no_grad():
        nn.init.normal_(network.output.weight, std=0.2, generator=torch.Generator().manual_seed(1))
        network.output.bias[end] += 3
    config = PrimeConfig(
        architecture="prime",
        length=24,
        vocabulary_size=classes,
        sub_tokens_per_token=2,
        base=17,
        hidden_size=32,
        blocks=2,
        heads=4,
        canvas="as_requested",
        end_token_id=end,
    )
    write_bundle(folder, config, dict(network.state_dict()), tokenizer, card="# A random network\n")


def _write_scribe(folder: Path) -> None:
    """A chain that writes one text, a byte a token, then end tokens: in whatever order, nothing else has a chance."""
    tokenizer = byte_tokenizer()
    classes, end = tokenizer.get_vocab_size(), tokenizer.token_to_id(END_TOKEN)
    path = [*tokenizer.encode(SCRIBES_TEXT).ids, end, end]
    initial, transition = torch.full((classes,), -torch.inf), torch.full((classes, classes), -torch.inf)
    transition.fill_diagonal_(0.0)
    initial[path[0]] = 0.0
    for token, following in itertools.pairwise(path):
        transition[token] = -torch.inf
        transition[token, following] = 0.0
    config = MarkovConfig(
        architecture="markov",
        length=len(path) + 4,
        vocabulary_size=classes,
        sub_tokens_per_token=2,
        base=17,
        end_token_id=end,
    )
    write_bundle(folder, config, {"log_initial": initial, "log_transition": transition}, tokenizer)
    (folder / "chat_template.jinja").write_text(SCRIBES_TEMPLATE)


def _write_photo(folder: Path) -> None:
    """A random U-Net over 4 x 4 pixels of red, green and blue bytes, two digits each."""
    image = ImageConfig(height=PICTURES.height, width=PICTURES.width, channels=PICTURES.channels)
    keys: dict[str, Any] = {
        name: list(size) if isinstance(size, tuple) else size for name, size in vars(PICTURES).items()
    }
    config = UNetConfig(architecture="unet", length=PICTURES.length, clock=3, image=image, **keys)
    write_bundle(folder, config, dict(random_unet(PICTURES).state_dict()))


def _served(model: Path) -> Iterator[Server]:
    with Server(model) as server:
        yield server.until_ready()


@pytest.fixture(scope="session")
def writer(bundles: Path) -> Iterator[Server]:
    yield from _served(bundles / "writer")


@pytest.fixture(scope="session")
def scribe(bundles: Path) -> Iterator[Server]:
    yield from _served(bundles / "scribe")


@pytest.fixture(scope="session")
def table(bundles: Path) -> Iterator[Server]:
    yield from _served(bundles / "table")


@pytest.fixture(scope="session")
def chain(bundles: Path) -> Iterator[Server]:
    yield from _served(bundles / "chain")


@pytest.fixture(scope="session")
def long_chain(bundles: Path) -> Iterator[Server]:
    """Its whole canvas takes 2048 evaluations: long enough that nothing ends by itself while a test looks."""
    yield from _served(bundles / "long-chain")


@pytest.fixture(scope="session")
def pixels(bundles: Path) -> Iterator[Server]:
    """An image model."""
    yield from _served(bundles / "pixels")


@pytest.fixture(scope="session")
def photo(bundles: Path) -> Iterator[Server]:
    """An image model of bytes, drawn by a U-Net."""
    yield from _served(bundles / "photo")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command of the command line in this process."""
    return command_line(monkeypatch, capfd)
