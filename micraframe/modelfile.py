"""A saved model: a folder of `model.json`, which describes it, and `weights.safetensors`.

Neither file can run code. The weights depend only on what was learned: the same seed gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
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
from micraframe.errors import MicraframeError, ModelError, reason_of
from micraframe.registry import catalog
from micraframe.runtime.files import atomic_folder, write_json
from micraframe.runtime.numerics import library_versions
from micraframe.tiling import Tiling
from micraframe.types import DatasetInfo, Origin

FORMAT = 3
"""The version of the format, in `model.json`."""

DESCRIPTION = "model.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, eq=False)
class ModelFile:
    """The content of a saved model.

    Attributes:
        method: Qualified name of the method, with all its parameters.
        head: Qualified name of the head, with all its parameters, tuned thresholds included.
        info: Metadata of the dataset that it learned from.
        tensors: The model's state, by name.
        tiling: How large images are cut into tiles.
        origins: Where thresholds come from that are not fixed, by `presence` and `mask`.
        untuned: The head before its thresholds were tuned; None: they were not.
        provenance: Seed, fingerprint of the data, device, precision, processor, versions.
    """

    method: Choice
    head: Choice
    info: DatasetInfo
    tensors: Mapping[str, Tensor]
    tiling: Tiling | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)
    untuned: Choice | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)


def provenance(seed: int, fingerprint: str, computed_with: Mapping[str, str]) -> dict[str, str]:
    """Return the seed, the data's fingerprint, what else determined the weights (as `numerics`), and all versions."""
    return {"seed": str(seed), "data": fingerprint, **computed_with, **versions()}


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part in a computation, plugins included."""
    found = {"python": platform.python_version(), "micraframe": metadata.version("micraframe"), **library_versions()}
    return found | {plugin.distribution: plugin.version for plugin in catalog().plugins}


def hash_weights(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the file in which these weights are, or would be, saved."""
    return _sha256(_serialised(tensors))


def save_model(folder: Path, model: ModelFile) -> None:
    """Write the model atomically, replacing one that is there."""
    weights = _serialised(model.tensors)
    description = {
        "format": FORMAT,
        "info": dataclasses.asdict(model.info),
        "provenance": dict(model.provenance),
        "sha256": _sha256(weights),
        **_inference(model),
    }
    with atomic_folder(folder) as temporary:
        (temporary / WEIGHTS).write_bytes(weights)
        write_json(temporary / DESCRIPTION, description)


def share_weights(source: Path, folder: Path, model: ModelFile) -> None:
    """Write a saved model to another folder, with other parameters but the same weights, which are not read.

    The weights are a hard link, or a copy where the file system has none. No file of a model is ever changed in place,
    so neither model depends on the other. A folder that holds the same model already is left as it is.

    Args:
        source: A saved model.
        folder: Replaced if it exists.
        model: Its method is the source's, whose parameters may differ in those that do not influence what was learned.
            Info, tensors and provenance are the source's, whatever it has.

    Raises:
        OSError: If a file of the source is missing.
        ValueError: If its description is not JSON.
    """
    known = json.loads((source / DESCRIPTION).read_text(encoding="utf-8"))
    description = known | _inference(model)
    weights = (source / WEIGHTS).resolve()
    if _holds(folder, description, weights.stat().st_size):
        return
    with atomic_folder(folder) as temporary:
        try:
            os.link(weights, temporary / WEIGHTS)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(weights, temporary / WEIGHTS)
        write_json(temporary / DESCRIPTION, description)


def weights_hash(folder: Path) -> str | None:
    """Return the SHA-256 of a saved model's weights, as its description has it; None if this is no saved model."""
    try:
        known = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(known)


def load_model(folder: Path) -> ModelFile:
    """Read what `save_model` wrote; nothing in it is executed.

    Raises:
        ModelError: If a file is missing, damaged, or of another format version.
    """
    try:
        described = (folder / DESCRIPTION).read_text(encoding="utf-8")
        weights = (folder / WEIGHTS).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        reason = _why_unreadable(folder, error)
        raise ModelError(
            f"{folder}: expected a saved model, a folder with {DESCRIPTION} and {WEIGHTS}; {reason}"
        ) from error
    try:
        record = json.loads(described)
    except ValueError as error:
        raise ModelError(f"{folder / DESCRIPTION}: expected JSON, got {error}; save the model again") from error
    version = record.get("format") if isinstance(record, dict) else None
    if version != FORMAT:
        raise ModelError(
            f"{folder / DESCRIPTION}: expected format {FORMAT}, got {version!r}; use the micraframe version that wrote "
            "the model, or train it again"
        )
    if record.get("sha256") != _sha256(weights):
        raise ModelError(
            f"{folder / WEIGHTS}: expected the SHA-256 in {DESCRIPTION}, got another for these {len(weights)} bytes; "
            "the file is truncated or was replaced: copy or save the model again"
        )
    try:
        return ModelFile(
            method=Choice.model_validate(record["method"]),
            head=Choice.model_validate(record["head"]),
            info=TypeAdapter(DatasetInfo).validate_python(record["info"]),
            tensors=safetensors.torch.load(weights),
            tiling=TypeAdapter(Tiling | None).validate_python(record["tiling"]),
            origins=TypeAdapter(dict[str, Origin]).validate_python(record["origins"]),
            untuned=TypeAdapter(Choice | None).validate_python(record["untuned"]),
            provenance=TypeAdapter(dict[str, str]).validate_python(record["provenance"]),
        )
    except KeyError as error:
        raise ModelError(f"{folder / DESCRIPTION}: expected the key {error}; save the model again") from error
    except (ValidationError, MicraframeError, TypeError, safetensors.SafetensorError) as error:
        raise ModelError(f"{folder}: cannot be read: {reason_of(error)}; save the model again") from error


def _inference(model: ModelFile) -> dict[str, Any]:
    """Return the part of a description that may change after training."""
    return {
        "method": model.method.model_dump(mode="json"),
        "head": model.head.model_dump(mode="json"),
        "tiling": model.tiling and model.tiling.model_dump(mode="json"),
        "origins": dict(model.origins),
        "untuned": model.untuned and model.untuned.model_dump(mode="json"),
    }


def _holds(folder: Path, description: Mapping[str, Any], size: int) -> bool:
    """Return whether a folder holds the model of this description, with weights of so many bytes."""
    try:
        same = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")) == json.loads(json.dumps(description))
        return same and (folder / WEIGHTS).stat().st_size == size
    except (OSError, ValueError):
        return False


def _why_unreadable(folder: Path, error: OSError | UnicodeDecodeError) -> str:
    """Return why a folder cannot be read as a saved model, and the model that was probably meant."""
    inner = folder / "model"
    if (inner / DESCRIPTION).is_file():
        return f"did you mean {inner}?"
    if isinstance(error, UnicodeDecodeError):
        return f"{DESCRIPTION} is not UTF-8 text"
    if not folder.exists():
        return "there is no such folder"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"there is no {Path(error.filename).name} in it" if folder.is_dir() else "it is a file"
    return f"{error.filename}: {error.strerror}"


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    # Clones: safetensors cannot hold tensors that share memory or are not contiguous.
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(tensors.items())}
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
