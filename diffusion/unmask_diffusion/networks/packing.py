"""How canvases of different lengths lie in one tensor, without padding to the longest."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from unmask_kernels import to_device

# Positions of a canvas that are read are attended from in tiles of so many queries: an attention whose number of
# queries varied would add in another order.
QUERY_TILE = 32


@dataclass(frozen=True)
class Run:
    """Neighbouring canvases of one length with equally many queries: attention over them is one call."""

    length: int
    queries: int  # of each canvas
    count: int  # canvases


class PackedLayout:
    """Where ragged canvases lie when their rows are concatenated, shortest canvas first."""

    order: list[int]  # the canvases as they are packed
    runs: list[Run]  # equal canvases in this order
    indices: Tensor  # int64 [N], packed indices of the positions to read, in the order of `rows`
    # int64 [Q], for each query of the tiles which entry of `indices` it reads; tiles are filled up with an entry of any
    # canvas, whose result is not used
    queries: Tensor
    places: Tensor  # int64 [N], where among the queries the entries of `indices` are

    def __init__(self, lengths: Sequence[int], rows: Sequence[Tensor]) -> None:
        tiled = [_tiled(length, len(read)) for length, read in zip(lengths, rows, strict=True)]
        self.order = sorted(range(len(lengths)), key=lambda i: (lengths[i], tiled[i]))
        self.runs = [
            Run(length, queries, len(list(members)))
            for (length, queries), members in groupby((lengths[i], tiled[i]) for i in self.order)
        ]
        row_starts = _starts(lengths, self.order)
        query_starts = _starts(tiled, self.order)
        self.indices = torch.cat([read + start for read, start in zip(rows, row_starts, strict=True)])
        self.places = torch.cat(
            [torch.arange(start, start + len(read)) for read, start in zip(rows, query_starts, strict=True)]
        )
        self.queries = torch.zeros(sum(tiled), dtype=torch.int64)
        self.queries[self.places] = torch.arange(len(self.places))

    def load(self, canvases: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        """Move canvases [L_i, l] and what this layout holds to a device, all in one copy.

        Returns:
            The canvases' digits in this layout's order, int64 [sum L_i, l], and the position of each of these rows in
            its own canvas, int64 [sum L_i].
        """
        packed = torch.cat([canvases[i] for i in self.order])
        positions = torch.cat([torch.arange(run.length).repeat(run.count) for run in self.runs])
        tensors = packed, positions, self.indices, self.queries, self.places
        packed, positions, self.indices, self.queries, self.places = to_device(tensors, device)
        return packed, positions


def _tiled(length: int, rows: int) -> int:
    """Queries of a canvas: its rows filled up to whole tiles; a canvas shorter than a tile has one of its length."""
    tile = min(QUERY_TILE, length)
    return -(-rows // tile) * tile


def _starts(sizes: Sequence[int], order: Sequence[int]) -> list[int]:
    """Where each piece begins when pieces are put one behind the other in an order."""
    starts = [0] * len(sizes)
    total = 0
    for i in order:
        starts[i] = total
        total += sizes[i]
    return starts
