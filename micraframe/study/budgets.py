"""Shares of the annotation: what a method achieves with less of it, at the same number of optimisation steps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

from micraframe.config import ComparedMethod


def expand(methods: Iterable[ComparedMethod], count: Callable[[], int]) -> tuple[ComparedMethod, ...]:
    """Return the methods with one entry per budget, and every share of the training images as their number.

    Args:
        methods: With every default written out, as `config.resolve` returns them.
        count: Returns the number of training images. It is called only if a share needs it, as counting crops may mean
            reading masks.
    """
    total = functools.cache(count)
    found: list[ComparedMethod] = []
    for each in methods:
        shares = each.budgets or ([each.train_share] if each.train_share else [])
        found += [at_share(each, share, total()) for share in shares] or [each]
    return tuple(found)


def at_share(compared: ComparedMethod, share: float, total: int) -> ComparedMethod:
    """Return a method that learns from a share of the training images, with `matched` steps.

    A share of 1 leaves `train_images` unset.

    Args:
        compared: The method.
        share: In (0, 1].
        total: Number of training images.
    """
    number = max(1, round(share * total))
    changes: dict[str, Any] = {"budgets": [], "train_share": None}
    if number < total:
        params = matched(compared.method.params, total, number)
        changes |= {"train_images": number, "method": compared.method.model_copy(update={"params": params})}
    return compared.model_copy(update=changes)


def matched(params: dict[str, Any], total: int, number: int) -> dict[str, Any]:
    """Return a method's parameters with as many optimisation steps on `number` images as on `total`.

    An epoch of n images in batches of b is ceil(n / b) steps. In every mapping with `epochs` and `batch_size`, however
    deeply nested, `epochs`, and `early_stopping` and `plateau_patience`, which count epochs, are multiplied by
    ceil(total / b) / ceil(number / b) and rounded. A method without epochs, such as a forest, learns as it does.
    """
    changed: dict[str, Any] = {
        name: matched(value, total, number) if isinstance(value, dict) else value for name, value in params.items()
    }
    if {"epochs", "batch_size"} <= {*changed}:
        batch = changed["batch_size"]
        factor = math.ceil(total / batch) / math.ceil(number / batch)
        changed |= {
            key: max(1, round(changed[key] * factor))
            for key in ("epochs", "early_stopping", "plateau_patience")
            if changed.get(key)
        }
    return changed
