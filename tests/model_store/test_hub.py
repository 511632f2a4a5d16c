"""`unmask pull`: what is meant by a name, what is in the hub's cache, and what a hub answers."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unmask_model_store import open_bundle
from unmask_model_store.importers import ImportFailure, Request, hub, import_checkpoint

from tests.helpers_command_line import Run
from tests.helpers_server import environment
from tests.model_store.conftest import COMMIT
from tests.model_store.test_import_golden import GOLDEN, TOLERANCE, error_of, to_hugging_face


@pytest.mark.parametrize(
    ("target", "sub_tokens", "carry_over", "expected"),
    [
        ("mdm-prime-owt", 4, False, ("text/owt/results_prime_l4_owt/checkpoint.ckpt", "mdm-prime-owt-l4")),
        ("mdm-prime-owt", 6, True, ("text/owt/results_prime_l6_co_owt/checkpoint.ckpt", "mdm-prime-owt-l6-co")),
        ("chen-hao-chao/mdm-prime", 2, False, ("text/owt/results_prime_l2_owt/checkpoint.ckpt", "mdm-prime-owt-l2")),
        ("chen-hao-chao/mdm-prime/text/owt/x/checkpoint.ckpt", None, False, ("text/owt/x/checkpoint.ckpt", "x")),
        ("mdlm-owt", None, False, (None, "mdlm-owt")),
        ("mdlm-owt-fp32", None, False, (None, "mdlm-no_flashattn-fp32-owt")),
        ("llada-8b-instruct", None, False, (None, "LLaDA-8B-Instruct")),
        (
            "mdm-prime-owt-l4-reproduce",
            None,
            False,
            ("text/owt/results_prime_l4_owt_reproduce/checkpoint.ckpt", "mdm-prime-owt-l4-reproduce"),
        ),
        (
            "mdm-prime-v2-slimpajama",
            None,
            False,
            ("mdm-prime-v2-3300flops-weight-only.pth", "mdm-prime-v2-slimpajama"),
        ),
        ("someone/model", None, False, (None, "model")),
        ("someone/model/last.ckpt", None, False, ("last.ckpt", "last")),
        ("someone/model/a b/ü/last.ckpt", None, False, ("a b/ü/last.ckpt", "-")),
        (
            "mdm-prime-cifar10",
            2,
            False,
            ("image/cifar10/results_prime_l2_cifar10/checkpoint-4249.pth", "mdm-prime-cifar10-l2"),
        ),
        (
            "mdm-prime-imagenet32",
            1,
            False,
            ("image/imagenet32/results_mdm_imagenet32/checkpoint-674.pth", "mdm-prime-imagenet32-l1"),
        ),
    ],
)
def test_names(target: str, sub_tokens: int | None, carry_over: bool, expected: tuple[str | None, str]) -> None:
    wanted = hub.parse(target, sub_tokens, carry_over, "main")
    assert (wanted.file, wanted.name, wanted.revision) == (*expected, "main")


@pytest.mark.parametrize(
    ("target", "sub_tokens", "carry_over", "needle"),
    [
        ("mdm-prime-owt", None, False, "--sub-tokens: 2, 3, 4, 6, 8"),
        ("mdm-prime-owt", 5, False, "--sub-tokens"),
        ("mdlm-owt", 4, False, "mdm-prime-owt only"),
        ("mdm-prime-cifar10", None, False, "--sub-tokens, 1, 2, 3, 4, 8"),
        ("mdm-prime-cifar10", 6, False, "--super-token"),
        ("mdm-prime-cifar10", 2, True, "mdm-prime-owt only"),
        ("mdlm-owt", None, True, "mdm-prime-owt only"),
        ("model", None, False, "OWNER/NAME"),
        ("", None, False, "OWNER/NAME"),
        ("a//b", None, False, "OWNER/NAME"),
        ("a/b/../../c", None, False, "OWNER/NAME"),
        ("\x1b[2J", None, False, "OWNER/NAME"),
    ],
)
def test_names_that_are_none(target: str, sub_tokens: int | None, carry_over: bool, needle: str) -> None:
    with pytest.raises(ImportFailure, match=needle) as caught:
        hub.parse(target, sub_tokens, carry_over, None)
    assert str(caught.value).isprintable()


def test_the_super_token_models() -> None:
    wanted = hub.parse("mdm-prime-cifar10", None, False, None, super_token=True)
    assert wanted.file == "image/cifar10/results_prime_supertoken_cifar10/checkpoint-2249.pth"
    assert (wanted.name, wanted.official) == ("mdm-prime-cifar10-super-token", False)
    assert (
        len({hub.parse(f"mdm-prime-{d}", n, False, None).file for d in hub.IMAGE_EPOCHS for n in (1, 2, 3, 4, 8)}) == 10
    )
    with pytest.raises(ImportFailure, match="--super-token is for"):
        hub.parse("mdlm-owt", None, False, None, super_token=True)


def test_what_the_file_of_v2_does_not_say_is_known(run: Run, tmp_path: Path) -> None:
    sizes = {"heads": 14, "sub_tokens": 15, "base": 2, "length": 2048}
    assert hub.parse("mdm-prime-v2-slimpajama", None, False, None).sizes == sizes
    assert hub.parse("someone/model", None, False, None).sizes == {}
    refused = run("pull", "mdm-prime-v2-slimpajama", "--out", str(tmp_path / "v2"))
    assert refused.code == 2
    assert "say --codes FILE" in refused.stderr


@pytest.mark.usefixtures("snapshot")
def test_one_line_where_the_hub_cannot_be_reached(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImportFailure) as caught:
        hub.fetch(hub.parse("mdlm-owt", None, False, None))
    assert str(caught.value).startswith("kuleshov-group/mdlm-owt: the Hugging Face hub cannot be reached")
    assert len(str(caught.value).splitlines()) == 1
    assert hub.fetch_gpt2() is None
    assert capfd.readouterr() == ("", "")


def test_what_is_in_the_cache_needs_no_hub(snapshot: Callable[[str], Path], tmp_path: Path) -> None:
    file = snapshot("chen-hao-chao/mdm-prime") / "text/owt/results_prime_l3_owt/checkpoint.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes((GOLDEN / "tiny_A.ckpt").read_bytes())
    wanted = hub.parse("mdm-prime-owt", 3, False, None)
    found = hub.fetch(wanted)
    facts = {"repository": "chen-hao-chao/mdm-prime", "revision": COMMIT, "file": wanted.file}
    assert wanted.facts(found) == facts
    import_checkpoint(Request(found, tmp_path / "bundle", origin=wanted.facts(found)))
    bundle = open_bundle(tmp_path / "bundle")
    assert error_of(bundle, "A") < TOLERANCE
    assert facts.items() <= bundle.config.provenance.items()


def test_hugging_faces_layout_in_the_cache(snapshot: Callable[[str], Path], tmp_path: Path) -> None:
    to_hugging_face("D", snapshot("kuleshov-group/mdlm-owt"))
    import_checkpoint(Request(hub.fetch(hub.parse("mdlm-owt", None, False, COMMIT)), tmp_path / "bundle"))
    assert error_of(open_bundle(tmp_path / "bundle"), "D") < TOLERANCE


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download of single files uses."""

    files: dict[str, bytes] = {}  # noqa: RUF012 — set by the fixture

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, whole: bool) -> None:
        _, owner, _, _, revision, *path = self.path.split("/")
        problem = {"nobody": "RepoNotFound", "gate": "GatedRepo"}.get(owner) or (
            "RevisionNotFound" if revision != "main" else None if "/".join(path) in self.files else "EntryNotFound"
        )
        content = self.files.get("/".join(path), b"")
        self.send_response(404 if problem else 200)
        self.send_header("Content-Length", "0" if problem else str(len(content)))
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if problem:
            self.send_header("X-Error-Code", problem)
        self.end_headers()
        if whole and not problem:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = to_hugging_face("D", tmp_path_factory.mktemp("served") / "hf")
    Hub.files = {file.name: file.read_bytes() for file in folder.iterdir()}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


FETCH = """
import json, sys
from unmask_model_store.importers import ImportFailure, hub
answers = []
for target, revision in json.loads(sys.argv[1]):
    try:
        answers.append(str(hub.fetch(hub.parse(target, None, False, revision))))
    except ImportFailure as failure:
        answers.append(str(failure))
print(json.dumps(answers))
"""


def test_a_hub_is_asked(endpoint: str, tmp_path: Path) -> None:
    """The hub's client reads its address when it is imported, so this runs in a process of its own."""
    targets = [
        ("someone/mdlm", None),
        ("nobody/mdlm", None),
        ("gate/mdlm", None),
        ("someone/mdlm", "v9"),
        ("someone/mdlm/else.ckpt", None),
    ]
    ran = subprocess.run(
        [sys.executable, "-c", FETCH, json.dumps(targets)],
        env=environment() | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    found, nobody, gate, revision, entry = json.loads(ran.stdout)
    import_checkpoint(Request(Path(found), tmp_path / "bundle"))
    assert error_of(open_bundle(tmp_path / "bundle"), "D") < TOLERANCE
    assert nobody == "nobody/mdlm: there is no such repository, or it is private and you are not logged in"
    assert gate.startswith("gate/mdlm: is gated")
    assert revision == "someone/mdlm (revision v9): there is no such revision"
    assert entry.startswith("someone/mdlm: has no file else.ckpt")
