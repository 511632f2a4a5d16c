"""Pictures of a generation's log: a sample after any of its steps, all samples on a sheet, and the whole as a film.

Each is a function of plan and log alone, so that it never changes once the generation has finished.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from fastapi import APIRouter, Query, Response
from torch import Tensor
from unmask_diffusion import MAX_SAMPLES, Painter, Reveal, initial_state

from unmask_service.api.errors import RefusedError, invalid
from unmask_service.api.followers import Generation
from unmask_service.api.picture_requests import check_size
from unmask_service.api.routes import UNKNOWN, Documented
from unmask_service.api.service import Models
from unmask_service.pictures import MAX_FRAMES, MAX_SCALE, film_of, png_of, sheet_of

PNG = "image/png"
# the address is private, and its picture final
FINAL = {"Cache-Control": "private, max-age=31536000, immutable"}
DEFAULT_FRAMES = 48

Scale = Annotated[int, Query(ge=1, le=MAX_SCALE, description="each pixel so many times larger")]
Columns = Annotated[int | None, Query(ge=1, le=MAX_SAMPLES, description="default: as square as may be")]
Frames = Annotated[int | None, Query(ge=2, le=MAX_FRAMES, description=f"default: {DEFAULT_FRAMES} at most")]
PICTURES: Documented = UNKNOWN | {200: {"content": {PNG: {}}, "description": "a PNG"}}


class LoggedPictures:
    """The samples of a generation as its log has them so far."""

    def __init__(self, follower: Generation, painter: Painter, reveals: Sequence[Reveal]) -> None:
        self.follower, self.painter = follower, painter
        self._logs: list[list[Reveal]] = [[] for _ in follower.plan.schedules]
        for reveal in reveals:
            self._logs[reveal.sample].append(reveal)

    @classmethod
    async def find(cls, models: Models, job_id: str) -> "LoggedPictures":
        """The pictures of a generation. Raises RefusedError: it is not known, or of a model that makes no pictures."""
        follower = await Generation.find(models, job_id)
        painter = follower.served.model.image
        if painter is None:
            message = f"model {follower.served.name!r} makes no pictures: its canvases are text"
            raise RefusedError("no_picture", message, "id")
        return cls(follower, painter, await follower.reveals_so_far())

    @property
    def headers(self) -> dict[str, str]:
        return FINAL if self.follower.record.state == "finished" else {}

    @property
    def samples(self) -> int:
        return len(self._logs)

    def steps_of(self, index: int) -> int:
        return len(self._logs[index])

    def canvas(self, index: int, step: int) -> Tensor:
        """The digits of a sample after so many steps: int64 [L, l]."""
        digits = initial_state(self.follower.served.model, self.follower.plan)
        for reveal in self._logs[index][:step]:
            reveal.write(digits)
        return digits

    def picture(self, index: int, step: int) -> Tensor:
        return self.painter.paint(self.canvas(index, step))

    def sheet(self, columns: int | None) -> Tensor:
        """All samples as they are: uint8 [H, W, 4]."""
        steps = map(len, self._logs)
        return sheet_of(torch.stack([self.picture(index, step) for index, step in enumerate(steps)]), columns)

    def film(self, frames: int, columns: int | None) -> list[Tensor]:
        """Sheets from before the first step to the last, each sample at the same share of its own steps."""
        films = []
        for index, log in enumerate(self._logs):
            ends = [frame * len(log) // max(1, frames - 1) for frame in range(frames)]
            states, digits = [], self.canvas(index, 0)
            for before, end in zip([0, *ends], ends, strict=False):
                for reveal in log[before:end]:
                    reveal.write(digits)
                states.append(digits.clone())
            films.append(self.painter.paint(torch.stack(states)))
        return [sheet_of(torch.stack(of_frame), columns) for of_frame in zip(*films, strict=True)]


def log_picture_routes(models: Models) -> APIRouter:
    """The routes that paint the log of a generation."""
    router = APIRouter(
        prefix="/generate/{job_id}", tags=["pictures"], responses=PICTURES, default_response_class=Response
    )

    @router.get("/image.png", summary="Picture of a sample")
    async def image(
        job_id: str,
        index: Annotated[int, Query(ge=0, lt=MAX_SAMPLES, description="number of the sample")] = 0,
        step: Annotated[int | None, Query(ge=0, description="after so many steps (default: all that are done)")] = None,
        scale: Scale = 1,
    ) -> Response:
        """A sample after any of its steps: 0 is what the request gave."""
        pictures = await LoggedPictures.find(models, job_id)
        check_index(pictures, index)
        done = pictures.steps_of(index)
        if step is not None and step > done:
            raise invalid(f"step is {step}; sample {index} has done {done} steps", "step")
        check_size(pictures.painter, 1, scale)
        return await png_response(
            pictures, lambda: png_of(pictures.picture(index, done if step is None else step), scale)
        )

    @router.get("/sheet.png", summary="Contact sheet of all samples")
    async def sheet(job_id: str, columns: Columns = None, scale: Scale = 1) -> Response:
        """All samples as they are, row by row."""
        pictures = await LoggedPictures.find(models, job_id)
        check_size(pictures.painter, pictures.samples, scale)
        return await png_response(pictures, lambda: png_of(pictures.sheet(columns), scale))

    @router.get("/film.png", summary="Film of the unmasking")
    async def film(
        job_id: str,
        frames: Frames = None,
        columns: Columns = None,
        scale: Scale = 1,
    ) -> Response:
        """An animated PNG: all samples, from what the request gave to where they are."""
        pictures = await LoggedPictures.find(models, job_id)
        longest = 1 + max(pictures.steps_of(index) for index in range(pictures.samples))
        chosen = min(longest, DEFAULT_FRAMES) if frames is None else frames
        check_size(pictures.painter, pictures.samples * chosen, scale)
        return await png_response(pictures, lambda: film_of(pictures.film(chosen, columns), scale))

    async def png_response(pictures: LoggedPictures, paint: Callable[[], bytes]) -> Response:
        data = await asyncio.get_running_loop().run_in_executor(models.shared.painters, paint)
        return Response(data, media_type=PNG, headers=pictures.headers)

    return router


def check_index(pictures: LoggedPictures, index: int) -> None:
    """Refuse the number of a sample that is not there."""
    if index >= pictures.samples:
        raise invalid(f"index is {index}; this generation has the samples 0 … {pictures.samples - 1}", "index")
