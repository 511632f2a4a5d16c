"""The reader of pickles executes nothing, survives everything, and reads what torch writes."""

import collections
import contextlib
import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unmask_model_store.importers import ImportFailure
from unmask_model_store.importers.torch_file import TensorRecord, read_pickle
from unmask_model_store.importers.untrusted import Global, Recorded

GOLDEN = Path(__file__).parents[1] / "golden"


class Trap:
    """Anything that would be called leaves a trace."""

    sprung: ClassVar[list[object]] = []

    def append(self, value: object) -> None:
        Trap.sprung.append(value)

    def __setitem__(self, key: object, value: object) -> None:
        Trap.sprung.append((key, value))


def spring(*args: object) -> Trap:
    Trap.sprung.append(args)
    return Trap()


class Reduced:
    def __reduce__(self) -> tuple[Any, ...]:
        return spring, ("reduced",), {"state": 1}, iter([1, 2]), iter([("key", "value")])


class WithState:
    def __setstate__(self, state: object) -> None:
        spring("setstate", state)

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}


class Shell:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo this must never run > /tmp/unmask-was-here",)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.text(), st.integers()), inner)
    ),
)


@given(value=plain, protocol=st.integers(3, 5))
def test_plain_values_are_read_as_python_reads_them(value: object, protocol: int) -> None:
    found, unexpected = read_pickle(pickle.dumps(value, protocol))
    assert repr(found) == repr(pickle.loads(pickle.dumps(value, protocol)))  # noqa: S301
    assert unexpected == ()


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_is_read(protocol: int) -> None:
    value = {"a": [1, 2.5, None, True, -7, 2**40, 2**3000, "é"], "b": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))}
    value["c"] = value["a"]
    assert read_pickle(pickle.dumps(value, protocol)) == (value, ())


def test_containers_of_collections_become_dicts() -> None:
    ordered = collections.OrderedDict([("z", 1), ("a", 2)])
    default = collections.defaultdict(int, {"x": 3})
    found, unexpected = read_pickle(pickle.dumps([ordered, default], 2))
    assert found == [{"z": 1, "a": 2}, {"x": 3}]
    assert list(found[0]) == ["z", "a"]
    assert unexpected == ()


@pytest.mark.parametrize("protocol", range(6))
def test_sets_are_recorded(protocol: int) -> None:
    """Nothing that an importer needs is in a set, and elements would have to be hashed."""
    found, unexpected = read_pickle(pickle.dumps([{1, 2}, frozenset({3})], protocol))
    assert [type(each) for each in found] == [Recorded, Recorded]
    assert [each.name.rpartition(".")[2] for each in found] == ["set", "frozenset"]
    assert unexpected == ()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("trap", [Reduced, WithState, Shell])
def test_nothing_is_called(trap: Callable[[], object], protocol: int) -> None:
    before = len(Trap.sprung)
    content = pickle.dumps({"weights": 1, "trap": trap()}, protocol)
    (found, unexpected) = read_pickle(content)
    assert found["weights"] == 1
    assert isinstance(found["trap"], Recorded)
    assert unexpected
    assert len(Trap.sprung) == before
    assert not Path("/tmp/unmask-was-here").exists()  # noqa: S108
    if trap is not Shell:
        pickle.loads(content)  # noqa: S301 — the trap does work
        assert len(Trap.sprung) > before


def test_what_was_meant_is_remembered() -> None:
    found, unexpected = read_pickle(pickle.dumps(Reduced(), 2))
    assert isinstance(found, Recorded)
    assert (found.args, found.state, found.items) == (("reduced",), {"state": 1}, [1, 2, ("key", "value")])
    assert unexpected == (f"{__name__}.spring",)


PROGRAMS = {
    "reduce": b"cos\nsystem\n(S'true'\ntR.",
    "reduce of a result": b"cbuiltins\ngetattr\n(cos\nenviron\nS'clear'\ntR)R.",
    "inst": b"(S'true'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'true'\no.",
    "newobj": b"\x80\x02cos\nsystem\n(S'true'\nt\x81.",
    "newobj_ex": b"\x80\x04cos\nsystem\n(S'true'\nt}\x92.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'true'\ntR.",
    "stack global with dots": b"\x80\x04\x8c\x02os\x8c\x0dpath.os.abort\x93)R.",
    "build of a class": b"cos\nenviron\n}S'PATH'\nS'x'\nsb.",
    "build of a dict": b"}}S'__class__'\nS'x'\nsb.",
    "call of what is no global": b"S'system'\n(S'true'\ntR.",
    "append to what is recorded": b"cos\nsystem\n)RS'x'\na.",
    "persistent id": b"S'anything'\nQ.",
    "textual persistent id": b"Panything\n.",
    "builtin eval": b"cbuiltins\neval\n(S'1/0'\ntR.",
    "rebuild with nonsense": b"ctorch._utils\n_rebuild_tensor_v2\n(S'x'\nI0\n(I1\nt(I1\nttR.",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_programs_run_to_nothing(program: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "system", spring)
    environment, before = dict(os.environ), len(Trap.sprung)
    found, _ = read_pickle(program)
    assert isinstance(found, Recorded | Global | dict | tuple)
    assert (len(Trap.sprung), dict(os.environ)) == (before, environment)


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b".",
        b"N",
        b"nonsense",
        b"\x80\x04\x82\x01.",  # the extension registry
        b"\x80\x05\x97.",  # a buffer from elsewhere
        b"R.",
        b"\x85.",
        b"0.",
        b"h\x05.",
        b"I1\nI2\na.",
        b"(I1\nd.",
        b"]I1\nI2\ns.",
        b"]I1\nI2\n\x93.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a bytearray of 8 EiB
        b"\x8a\xff.",
        b"I" + b"9" * 10_000 + b"\n.",
    ],
)
def test_what_is_no_pickle_is_refused(program: bytes) -> None:
    with pytest.raises(ImportFailure) as caught:
        read_pickle(program)
    assert len(str(caught.value).splitlines()) == 1


def test_a_far_memo_index_takes_no_memory() -> None:
    """Python's own unpickler allocates a table of twice the index."""
    assert read_pickle(b"Nr\xff\xff\xff\xff.") == (None, ())


def test_depth_and_doubling_are_no_danger() -> None:
    read_pickle(b"}N" + b"\x85" * 200_000 + b"Ns.")  # as a key of a dict: its hash would be 200,000 calls deep
    doubling = b"}N" + b"".join(b"q%c0h%ch%c\x86" % (i, i, i) for i in range(64)) + b"Ns."
    read_pickle(doubling)  # a key whose hash would take 2^64 steps


def test_a_deep_key_in_any_container() -> None:
    deep = b"N" + b"\x85" * 200_000
    for program in (b"(" + deep + b"Nd.", b"}(" + deep + b"Nu.", b"\x8f(" + deep + b"\x90.", b"(" + deep + b"\x91."):
        read_pickle(program)


def test_shared_arguments_are_not_copied() -> None:
    """A million calls with the same million arguments would take 8 TB."""
    (first, second), _ = read_pickle(b"(" + b"N" * 1000 + b"tq\0" + b"0" + b"(" + b"cm\nn\nh\0R" * 2 + b"t.")
    assert first.args is second.args
    assert len(first.args) == 1000


def test_long_names_are_cut_off() -> None:
    """A thousand long strings make a million longer names."""
    found, (name,) = read_pickle(b"(" + b"N0" + b"X\x10\x27\0\0" + b"a" * 10_000 + b"q\0h\0\x93\x85t.")
    assert len(found[0][0].name) < 1000
    assert len(name) < 200


def test_a_state_does_not_change_a_tensor() -> None:
    storage = b"((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + b"I0\n(I4\nt(I1\nttR"
    for state in (b"(I1\nI1000\n(I9\nt(I-1\ntt", b"}S'shape'\n(I9\nts", b"N}S'shape'\n(I9\nts\x86"):
        found, _ = read_pickle(tensor + state + b"b.")
        assert isinstance(found, TensorRecord)
        assert (found.offset, found.shape, found.strides) == (0, (4,), (1,))


@pytest.mark.parametrize(
    "program",
    [
        b"\x8b\xff\xff\xff\x7f.",  # an integer of 2 GiB
        b"\x8d" + b"\xff" * 7 + b"\x7f.",  # a string of 8 EiB
        b"\x8e" + b"\xff" * 7 + b"\x7f.",  # bytes of 8 EiB
        b"\x96\0\0\0\0\x10\0\0\0.",  # a bytearray of 64 GiB
        b"\x80\x04\x95" + b"\xff" * 7 + b"\x7fN.",  # a frame of 8 EiB
    ],
)
def test_sizes_beyond_the_pickle_take_no_memory(program: bytes) -> None:
    with contextlib.suppress(ImportFailure):
        assert read_pickle(program) == (None, ())


def test_endless_programs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask_model_store.importers.torch_file.MOST_OPCODES", 1000)
    with pytest.raises(ImportFailure, match="1,000 opcodes"):
        read_pickle(b"N" + b"20" * 1000 + b".")


def test_names_cannot_speak_to_the_terminal() -> None:
    _, unexpected = read_pickle(b"cevil\x1b[2J\n" + b"x" * 500 + b"\n.")
    assert unexpected[0].isprintable()
    assert len(unexpected[0]) < 120


def torch_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read("archive/data.pkl")


def test_torchs_tensors_become_descriptions() -> None:
    base = torch.arange(24.0).view(4, 6)
    value = {"view": base[1:3, ::2], "parameter": torch.nn.Parameter(base), "half": torch.zeros(2).bfloat16()}
    found, unexpected = read_pickle(torch_pickle(value))
    assert unexpected == ()
    view, parameter, half = (found[key] for key in value)
    assert all(isinstance(each, TensorRecord) for each in (view, parameter, half))
    assert (view.offset, view.shape, view.strides) == (6, (2, 3), (6, 2))
    assert (view.storage.elements, view.storage.dtype) == (24, torch.float32)
    assert parameter.storage.key == view.storage.key
    assert (half.storage.dtype, half.shape) == (torch.bfloat16, (2,))


@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_pickles_end_in_a_value_or_a_refusal(seed: int) -> None:
    """Flip, cut, repeat bytes of a real one."""
    with zipfile.ZipFile(GOLDEN / "tiny_B.ckpt") as archive:
        data = bytearray(archive.read("archive/data.pkl")[-6000:])
    noise = random.Random(seed)
    for _ in range(noise.randint(1, 20)):
        place = noise.randrange(len(data))
        data[place : place + noise.choice((0, 1, 1, 1, 7))] = noise.randbytes(noise.choice((0, 1, 1, 1, 9)))
    start = noise.randrange(len(data))
    for content in (bytes(data), b"(" * 5 + bytes(data[start:])):
        with contextlib.suppress(ImportFailure):
            read_pickle(content)
