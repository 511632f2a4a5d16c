"""A progress bar for a load test."""

import asyncio

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from unmask_service.load.run import LoadRun

# drawing costs the client some milliseconds a frame
FRAMES_PER_SECOND = 4


async def run_with_progress(run: LoadRun, label: str) -> None:
    """Run it, with a progress bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    shown = Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal)
    with shown as bar:
        drawing = asyncio.create_task(_draw(run, bar, bar.add_task(label, total=1.0, state="")))
        try:
            await run.run()
        finally:
            drawing.cancel()


async def _draw(run: LoadRun, bar: Progress, task: TaskID) -> None:
    while True:
        ended = len(run.records)
        state = f"{ended} ended, {run.running} on their way, {ended / max(run.seconds, 1e-9):.1f} a second"
        bar.update(task, completed=run.share, state=state, refresh=True)
        await asyncio.sleep(1 / FRAMES_PER_SECOND)
