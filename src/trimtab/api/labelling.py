"""`/v1/labelling`: what to ask a person next, and how far people agree. Their word itself goes to `/v1/feedback`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request

from trimtab.domain.errors import InvalidInput
from trimtab.labelling import Labelling

from .access import App, Known

router = APIRouter(prefix="/v1/labelling", tags=["labelling"])


def _labelling(request: Request) -> Labelling:
    found: Labelling = request.app.state.labelling
    return found


Asking = Annotated[Labelling, Depends(_labelling)]


@router.get("/next")
async def following(
    app: App,
    caller: Known,
    asking: Asking,
    mode: Literal["label", "compare"] = "label",
    label: Annotated[str, Query(max_length=40)] = "helpful",
    skip: Annotated[list[str] | None, Query(max_length=500)] = None,
) -> dict[str, Any]:
    """The item to judge next: the person's own answers and imported ones; others' only where the operator allows it."""
    if label not in app.settings.feedback_labels:
        raise InvalidInput(f"There is no label '{label}'. The labels are: {', '.join(app.settings.feedback_labels)}.")
    return await app.database.read(asking.next, caller.id, mode, label, skip or ())


@router.get("/agreement")
async def agreement(app: App, caller: Known, asking: Asking) -> dict[str, Any]:
    """By label; preferences under ``preference``. Cohen's kappa for two people, Krippendorff's alpha for more."""
    found = await app.database.read(asking.agreement, caller.id)
    return {"agreement": {label or "preference": asdict(one) for label, one in found.items()}}
