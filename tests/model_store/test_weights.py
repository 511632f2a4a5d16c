"""Files written tensor by tensor are what the safetensors library reads."""

import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from unmask_model_store.weights import LazyTensor, save_file

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8)

tensors = st.builds(
    lambda shape, dtype: (torch.arange(int(torch.Size(shape).numel())) - 3).to(dtype).view(shape),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from(DTYPES),
)


@given(saved=st.dictionaries(st.text(min_size=1).filter(lambda name: name != "__metadata__"), tensors, max_size=6))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, saved: dict[str, Tensor]) -> None:
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    lazy = {name: LazyTensor(tuple(t.shape), t.dtype, t.clone) for name, t in saved.items()}
    for given_as in (saved, lazy):
        save_file(given_as, file)
        found = load_file(file)
        assert found.keys() == saved.keys()
        for name, tensor in saved.items():
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found[name], tensor)


def test_views_are_written_as_they_look(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4).requires_grad_(True)
    save_file({"transposed": base.mT, "part": base[1:, ::2]}, tmp_path / "w")
    found = load_file(tmp_path / "w")
    assert torch.equal(found["transposed"], base.mT)
    assert torch.equal(found["part"], base[1:, ::2])


def test_lazy_tensors_are_read_one_at_a_time(tmp_path: Path) -> None:
    alive: set[int] = set()
    most = 0

    def read(i: int) -> Tensor:
        nonlocal most
        tensor = torch.full((1000,), float(i))
        alive.add(i)
        weakref.finalize(tensor, alive.discard, i)
        most = max(most, len(alive))
        return tensor

    save_file({str(i): LazyTensor((1000,), torch.float32, partial(read, i)) for i in range(9)}, tmp_path / "w")
    assert most <= 2


def test_a_tensor_must_be_what_was_promised(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="promised"):
        save_file({"x": LazyTensor((3,), torch.float32, lambda: torch.zeros(2))}, tmp_path / "w")
