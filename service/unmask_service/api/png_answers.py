"""`Accept: image/png`: the answer is the picture itself, and headers say the rest."""

import torch
from fastapi import Request, Response
from unmask_diffusion import Painter

from unmask_service.api.errors import RefusedError, invalid
from unmask_service.api.schemas import GenerateAnswer, GenerateBody
from unmask_service.api.service import Service
from unmask_service.pictures import png_of, sheet_of

PNG = "image/png"
FACTS = "x-unmask-"


def painter_of(request: Request, service: Service, body: GenerateBody) -> Painter | None:
    """The painter of a client that asks for a picture instead of JSON, else None.

    Raises RefusedError: it does, but the model makes none, or the body asks for something else; or there is no sheet
    that `columns` could be for.
    """
    accepted = {each.partition(";")[0].strip().lower() for each in request.headers.get("accept", "").split(",")}
    if not accepted & {PNG, "image/*"} or "application/json" in accepted:
        if body.columns is not None:
            raise invalid(f"columns are those of a contact sheet: send the header Accept: {PNG}", "columns")
        return None
    painter = service.gate.pass_through().model.image
    if painter is None:
        if "*/*" in accepted:
            return None
        message = f"Accept: model {service.card.id!r} makes no pictures: its canvases are text"
        raise RefusedError("not_acceptable", message, "Accept")
    for field in ("stream", "detach"):
        if getattr(body, field):
            raise invalid(f"{field}: Accept: {PNG} is for one answer that is a picture; leave one of them out", field)
    return painter


def png_answer(answer: GenerateAnswer, painter: Painter, body: GenerateBody) -> Response:
    """The pictures of an answer: one, or a contact sheet."""
    pictures = painter.paint(torch.tensor([choice.token_ids for choice in answer.choices]))
    pixels = sheet_of(pictures, body.columns)
    facts = {
        "seed": answer.sampling.seed,
        "id": answer.id,
        "model": answer.model,
        "network-evaluations": answer.sampling.network_evaluations,
        "recoloured-pixels": answer.recoloured_pixels,
    }
    headers = {FACTS + name: str(value) for name, value in facts.items() if value is not None}
    return Response(png_of(pixels, body.scale), media_type=PNG, headers=headers)
