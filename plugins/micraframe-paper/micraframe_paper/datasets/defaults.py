"""Other defaults for the parameters of a dataset, with the descriptions and limits that they have."""

from __future__ import annotations

import copy
from typing import Any

from micraframe.parameters import Parameters


def default(model: type[Parameters], name: str, value: object) -> Any:
    """Return a parameter of a model, to be declared again in a subclass with another default."""
    field = copy.copy(model.model_fields[name])
    field.default = value
    return field
