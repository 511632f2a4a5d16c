"""What a server says of itself in /metrics, once and over time."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import linear_regression, mean

import httpx
from prometheus_client.parser import text_string_to_metric_families

EVALUATIONS = "unmask_network_evaluations_total"
RESIDENT = "unmask_process_resident_memory_bytes"
MIB = 1 << 20


class Scrape:
    """The values of one reading of /metrics."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self._samples = [(each.name, each.labels, each.value) for family in families for each in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's lines that have these labels; 0 where there is none, as with a counter never used."""
        return sum(value for each, own, value in self._samples if each == name and labels.items() <= own.items())

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """The sums of a metric's lines with these labels, for each value of another label."""
        values = {own[label] for each, own, _ in self._samples if each == name and labels.items() <= own.items()}
        return {value: self.value(name, **labels, **{label: value}) for value in values}


@dataclass(frozen=True)
class Moment:
    """A server at one time: seconds on the monotonic clock, evaluations so far, resident memory in MiB."""

    at: float
    evaluations: float
    resident: float


@asynccontextmanager
async def watching(url: str, every: float = 1.0) -> AsyncIterator[list[Moment]]:
    """Read the server's metrics every so many seconds; the list grows meanwhile."""
    moments: list[Moment] = []

    async def watch(http: httpx.AsyncClient) -> None:
        while True:
            moments.append(await moment(http))
            await asyncio.sleep(every)

    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        watcher = asyncio.create_task(watch(http))
        try:
            yield moments
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


async def moment(http: httpx.AsyncClient) -> Moment:
    """One reading."""
    scrape = Scrape((await http.get("/metrics")).raise_for_status().text)
    return Moment(time.monotonic(), scrape.value(EVALUATIONS), scrape.value(RESIDENT) / MIB)


def evaluations_a_second(moments: Sequence[Moment]) -> float:
    """Between the first and the last moment."""
    first, last = moments[0], moments[-1]
    return (last.evaluations - first.evaluations) / (last.at - first.at)


def growth(moments: Sequence[Moment]) -> float:
    """MiB by which resident memory grew from the first to the last moment, by linear regression."""
    slope, _ = linear_regression([each.at for each in moments], [each.resident for each in moments])
    return slope * (moments[-1].at - moments[0].at)


def resident(moments: Sequence[Moment]) -> float:
    """Mean resident memory in MiB."""
    return mean(each.resident for each in moments)
