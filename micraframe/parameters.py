"""The base of every parameter model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Parameters(BaseModel):
    """The parameters of a component: each with a description, frozen, and no others allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
