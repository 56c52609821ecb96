"""The benchmark of docs/objects.md: which fields are tested on, and that it trains the page's own recipe."""

from __future__ import annotations

from benchmarks.blood_cells import PARTS, heads, recipe, split
from micraframe import registry


def test_every_field_is_in_one_part_and_a_seed_fixes_which() -> None:
    names = [f"field{number}" for number in range(sum(PARTS.values()))]
    parts = split(names, 0)
    assert {part: len(drawn) for part, drawn in parts.items()} == PARTS
    assert sorted(name for drawn in parts.values() for name in drawn) == sorted(names)
    assert split(names, 0) == parts
    assert split(names, 1)["test"] != parts["test"]


def test_the_recipe_is_that_of_the_page_and_can_be_built() -> None:
    method, head = recipe()
    registry.build("method", method.name, **method.params)
    compared = heads(head)
    assert compared["recommended"] == head
    for each in compared.values():
        registry.build("head", each.name, **each.params)


def test_compared_heads_differ_from_the_recommended_one_in_the_threshold_alone() -> None:
    _, head = recipe()
    other = heads(head)["threshold 0.2"]
    assert other.params == head.params | {"mask_threshold": {"name": "fixed", "value": 0.2}}
