"""A saved model: a folder of `model.json`, which says all that is to be known, and `weights.safetensors`.

Neither file can run code. The weights depend on nothing but what was learned: the same seed gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from micraframe.config import Choice
from micraframe.errors import MicraframeError, ModelError
from micraframe.files import atomic_folder, write_json
from micraframe.registry import catalog
from micraframe.types import DatasetInfo, Threshold

FORMAT = 1
"""The version of the format, in `model.json`."""

DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, eq=False)
class ModelFile:
    """What a saved model holds.

    Attributes:
        method: The qualified name of the method, with all its parameters.
        info: Of the dataset that it learned from: classes, channels, normalisation.
        provenance: Versions, seed, fingerprint of the data: what `provenance` returns, and whatever else.
        tensors: By name.
        thresholds: What it decides by, and where that came from.
    """

    method: Choice
    info: DatasetInfo
    provenance: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    thresholds: tuple[Threshold, ...] = field(default=())


def provenance(seed: int, fingerprint: str) -> dict[str, str]:
    """Return the seed, the data's fingerprint, and the versions of all that took part, plugins included."""
    return {"seed": str(seed), "data": fingerprint, **versions()}


def versions() -> dict[str, str]:
    """Return the versions of all that takes part in a computation, plugins included."""
    found = {"python": platform.python_version()}
    for name in ("micraframe", "torch", "timm", "numpy"):
        found[name] = metadata.version(name)
    for plugin in catalog().plugins:
        found[plugin.distribution] = plugin.version
    return found


def hash_weights(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the file in which these weights are, or would be, saved."""
    return _sha256(_serialised(tensors))


def save_model(folder: Path, model: ModelFile) -> None:
    """Write the model; the folder is either as it was or complete."""
    weights = _serialised(model.tensors)
    description = {
        "format": FORMAT,
        "method": model.method.model_dump(mode="json"),
        "info": dataclasses.asdict(model.info),
        "thresholds": [_as_json(threshold) for threshold in model.thresholds],
        "provenance": dict(model.provenance),
        "sha256": _sha256(weights),
    }
    with atomic_folder(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(weights)
        write_json(temporary / DESCRIPTION, description)


def load_model(folder: Path) -> ModelFile:
    """Read what `save_model` wrote; nothing of it is executed.

    Raises:
        ModelError: If a file is missing, damaged, or of another format version.
    """
    try:
        described = (folder / DESCRIPTION).read_text(encoding="utf-8")
        weights = (folder / WEIGHTS).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{folder} is no saved model: {error}; a folder with {DESCRIPTION} and {WEIGHTS} is wanted"
        ) from error
    try:
        told = json.loads(described)
    except ValueError as error:
        raise ModelError(f"{folder / DESCRIPTION}: this is not JSON: {error}; save the model again") from error
    version = told.get("format") if isinstance(told, dict) else None
    if version != FORMAT:
        raise ModelError(
            f"{folder / DESCRIPTION} has format {version!r}; this micraframe reads format {FORMAT}: use the version "
            "that wrote the model, or save it again"
        )
    if told.get("sha256") != _sha256(weights):
        raise ModelError(
            f"{folder / WEIGHTS} is not the file that {DESCRIPTION} describes: its {len(weights)} bytes have another "
            "SHA-256; it was cut short or exchanged: copy or save the model again"
        )
    try:
        return ModelFile(
            method=Choice.model_validate(told["method"]),
            info=TypeAdapter(DatasetInfo).validate_python(told["info"]),
            provenance=TypeAdapter(dict[str, str]).validate_python(told["provenance"]),
            tensors=safetensors.torch.load(weights),
            thresholds=tuple(_from_json(one) for one in told["thresholds"]),
        )
    except KeyError as error:
        raise ModelError(f"{folder / DESCRIPTION}: there is no {error}; save the model again") from error
    except (ValidationError, MicraframeError, TypeError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{folder} cannot be read: {reason}; save the model again") from error


def _as_json(threshold: Threshold) -> dict[str, Any]:
    """Return the threshold with null for NaN, which JSON does not have."""
    return dataclasses.asdict(threshold) | ({"value": None} if math.isnan(threshold.value) else {})


def _from_json(told: dict[str, Any]) -> Threshold:
    return TypeAdapter(Threshold).validate_python(told | ({"value": math.nan} if told["value"] is None else {}))


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    # Copies: safetensors has no form for tensors that share memory or are not contiguous.
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
