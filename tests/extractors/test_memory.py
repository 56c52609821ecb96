"""How many images are computed together."""

from __future__ import annotations

import pytest
import torch

from micraframe.extractors.memory import BYTES, Plan, budget, layer_bytes, plan, smaller
from micraframe.types import Layer


def test_bytes_of_layers():
    layers = (Layer("one", 32, 1), Layer("two", 64, 4))
    assert layer_bytes(layers, (10, 7), 4) == [32 * 10 * 7 * 4, 64 * 3 * 2 * 4]
    assert layer_bytes(layers, (10, 7), 2) == [32 * 10 * 7 * 2, 64 * 3 * 2 * 2]


@pytest.mark.parametrize(
    ("count", "image", "bytes_there", "step", "wanted"),
    [
        (8, 10, 1000, None, (8, True)),
        (8, 10, 80, None, (8, True)),
        (8, 10, 79, None, (7, False)),
        (8, 10, 25, None, (2, False)),
        (8, 10, 9, None, (1, False)),
        (1, 10, 9, None, (1, True)),
        (8, 10, 1000, 1, (1, True)),
        (8, 10, 25, 3, (3, False)),
        (8, 10, 25, 8, (8, True)),
    ],
)
def test_plans(count, image, bytes_there, step, wanted):
    assert plan(count, image, bytes_there, step) == wanted


def test_what_to_try_next():
    assert smaller(Plan(5, True)) == (5, False)
    assert smaller(Plan(5, False)) == (2, False)
    assert smaller(Plan(1, False)) is None


def test_a_gpu_is_asked(monkeypatch):
    assert budget(torch.device("cpu")) == BYTES
    for name, answer in (("mem_get_info", (600, 1000)), ("memory_reserved", 300), ("memory_allocated", 100)):
        monkeypatch.setattr(torch.cuda, name, lambda device, answer=answer: answer)
    assert budget(torch.device("cuda")) == 400
