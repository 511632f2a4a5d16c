"""An hour of mixed load: the server's memory must not grow, and its counters must agree with what its clients saw.

Three loads share one server that takes few requests: a closed loop of mixed lengths, samplers and numbers of samples,
in which some clients disconnect in the middle of their streams; bursts of twice as many requests as the server takes,
of which some are refused; and invalid requests. At the end the counters in /metrics are compared with the clients':

  finished + cancelled  = completed + left (a client may disconnect just as its generation ends)
  rejected, by reason   = refusals seen, by code; failed = 0
  tokens, evaluations   at least those of completed requests, at most also everything planned for the left ones
  evaluations saved     together with those done exactly what was planned

Memory is read every second; its growth, by linear regression after the first fifth of the time, must stay under
--growth-limit. The exit code is 1 if anything does not hold.
"""

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import httpx
from unmask_bench.client import LEFT, LoadClient, Record, connect
from unmask_bench.load import Load, LoadRun, Mix
from unmask_bench.report import outcomes, run_with_progress

from benchmarks.harness import Numbers, Table
from benchmarks.models import add_model_options, described, open_model
from benchmarks.serving.server import (
    ANSWER_SECONDS,
    EVALUATIONS,
    Moment,
    Scrape,
    growth,
    mixed_samplers,
    resident,
    server_of,
    watching,
)

PLACES = 24
CLIENTS = 16
BETWEEN_BURSTS = 10.0
IDLE_TRIES = 600
SETTLE = 1.0  # seconds: an evaluation may still run when the last client has gone
REQUESTS = "unmask_requests_total"
REFUSED = ("422 ", "429 ")
IMPOSSIBLE = Mix(common={"n": 0}, stream_share=0.5)


@dataclass(frozen=True)
class Check:
    """A number of the server that must lie within bounds that the clients saw."""

    what: str
    server: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        return self.low <= self.server <= self.high


@dataclass(frozen=True)
class Soaked:
    """What the clients saw, the server over time, and its metrics before and after."""

    records: list[Record]
    moments: list[Moment]
    before: Scrape
    after: Scrape


def checks_of(records: Sequence[Record], before: Scrape, after: Scrape, digits: int) -> list[Check]:
    """Compare what the clients saw with what the server counted between two readings; a token has `digits` digits."""
    completed, left = [r for r in records if r.completed], [r for r in records if r.outcome == LEFT]
    evaluations = sum(r.counted("sampling", "network_evaluations") for r in completed)
    sub_tokens = sum(r.counted("sampling", "sub_tokens") for r in completed)
    seen, planned, masked = (sum(getattr(r, name) for r in left) for name in ("unmasks", "planned", "masked"))
    ended = {each: _counted(before, after, REQUESTS, outcome=each) for each in ("finished", "cancelled", "failed")}
    both, errors = len(completed) + len(left), sum(_unexpected(record) for record in records)
    totals = [_counted(before, after, name) for name in (EVALUATIONS, "unmask_sub_tokens_total", "unmask_tokens_total")]
    saved = _counted(before, after, "unmask_network_evaluations_saved_total")
    return [
        Check("requests finished", ended["finished"], len(completed), both),
        Check("requests finished or cancelled", ended["finished"] + ended["cancelled"], both, both),
        Check("requests failed", ended["failed"], 0, 0),
        *refusals(records, before, after),
        Check("network evaluations", totals[0], evaluations + seen, evaluations + planned),
        Check("network evaluations done or saved", totals[0] + saved, evaluations + planned, evaluations + planned),
        Check("sub-tokens", totals[1], sub_tokens + seen, sub_tokens + masked),
        Check("tokens", totals[2], sub_tokens / digits, (sub_tokens + masked) / digits),
        Check("errors that nobody should see", errors, 0, 0),
    ]


def refusals(records: Sequence[Record], before: Scrape, after: Scrape) -> list[Check]:
    """One check for each reason that the server or a client names."""
    seen = Counter(r.outcome.partition(" ")[2] for r in records if r.outcome.startswith(REFUSED))
    earlier = before.by("reason", REQUESTS, outcome="rejected")
    counted = after.by("reason", REQUESTS, outcome="rejected")
    return [
        Check(f"requests rejected, {each}", counted.get(each, 0) - earlier.get(each, 0), seen[each], seen[each])
        for each in sorted({*seen, *counted})
    ]


def _counted(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    return after.value(name, **labels) - before.value(name, **labels)


def _unexpected(record: Record) -> bool:
    return not record.completed and record.outcome != LEFT and not record.outcome.startswith(REFUSED)


def memory_check(moments: Sequence[Moment], limit: float) -> Check:
    """Growth of memory after the first fifth of the time, MiB; shrinking is no fault."""
    steady = moments[len(moments) // 5 :]
    return Check("growth of resident memory, MiB", max(0.0, growth(steady)), 0.0, limit)


async def soak(url: str, length: int, seconds: float) -> Soaked:
    """Run the loads, wait until the server is idle, and read its metrics."""
    mix = mixed_samplers(length, leave_share=0.2)
    async with connect(url, ANSWER_SECONDS) as client, httpx.AsyncClient(base_url=url, timeout=60) as http:
        before = Scrape((await http.get("/metrics")).text)
        runs = [
            LoadRun(client, mix, Load(CLIENTS, seconds=seconds)),
            LoadRun(client, IMPOSSIBLE, Load(request_rate=2.0, seconds=seconds)),
        ]
        async with watching(url, every=min(1.0, seconds / 20)) as moments:
            bursts = asyncio.create_task(_bursts(client, replace(mix, seed=1), seconds, runs))
            await asyncio.gather(run_with_progress(runs[0], "soak"), runs[1].run(), bursts)
        after = await _when_idle(http)
    return Soaked([record for run in runs for record in run.records], moments, before, after)


async def _bursts(client: LoadClient, mix: Mix, seconds: float, runs: list[LoadRun]) -> None:
    begun = time.monotonic()
    while (elapsed := time.monotonic() - begun) < seconds:
        burst = Load(concurrency=2 * PLACES, requests=2 * PLACES)
        runs.append(LoadRun(client, mix, burst, first=len(runs) * 2 * PLACES))
        await runs[-1].run()
        await asyncio.sleep(min(BETWEEN_BURSTS, (seconds - elapsed) / 4))


async def _when_idle(http: httpx.AsyncClient) -> Scrape:
    """The metrics once no request runs or waits; exit if that never happens, because requests were lost."""
    for _ in range(IDLE_TRIES):
        scrape = Scrape((await http.get("/metrics")).text)
        if not any(scrape.value(f"unmask_requests_{state}") for state in ("running", "waiting")):
            await asyncio.sleep(SETTLE)
            return Scrape((await http.get("/metrics")).text)
        await asyncio.sleep(0.1)
    raise SystemExit("all clients have gone, but the server still has requests that run or wait")


def table_of(checks: Sequence[Check]) -> Table:
    rows = []
    for each in checks:
        bounds = f"{each.low:,.0f}" if each.low == each.high else f"{each.low:,.0f} … {each.high:,.0f}"
        rows.append([each.what, f"{each.server:,.1f}", bounds, "holds" if each.holds else "fails"])
    return Table("Checks", ["check", "server", "clients", ""], rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--growth-limit", type=float, default=16.0, metavar="MIB", help="of memory (default: 16)")


def measured(arguments: argparse.Namespace) -> Numbers:
    model = open_model(arguments)
    with server_of(arguments, "--max-requests", str(PLACES)) as server:
        soaked = asyncio.run(soak(server.url, model.denoiser.length, 60 * arguments.minutes))
    checks = checks_of(soaked.records, soaked.before, soaked.after, model.sub_tokenizer.sub_tokens_per_token)
    checks.append(memory_check(soaked.moments, arguments.growth_limit))
    print(f"{arguments.minutes:g} minutes, {len(soaked.records)} requests")
    print(table_of(checks))
    return {
        "model": described(model),
        "minutes": arguments.minutes,
        "resident_mib": resident(soaked.moments),
        "checks": [vars(each) | {"holds": each.holds} for each in checks],
        **outcomes(soaked.records),
        "not_held": [each.what for each in checks if not each.holds],
    }
