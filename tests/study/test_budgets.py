"""Shares of the annotation become numbers of images, at the same number of optimisation steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from small_studies import DIGITS, NET, compared, net, study

from micraframe.config import Choice, ComparedMethod, Study
from micraframe.study import plan
from micraframe.study.budgets import at_share, expand, matched

SHARES = [0.12, 0.25, 0.5, 1.0]
RECIPE = {"epochs": 10, "batch_size": 4, "early_stopping": 3}
TWELVE = [Choice(name="modified-digits", params=DIGITS | {"train": 96})]


def steps(params: dict, images: int) -> int:
    return params["training"]["epochs"] * math.ceil(images / params["training"]["batch_size"])


def with_budgets(method: ComparedMethod, **changes: object) -> ComparedMethod:
    return ComparedMethod.model_validate(method.model_dump() | changes)


def planned(*methods: ComparedMethod) -> list:
    made = Study.model_validate(study(*methods).model_dump() | {"datasets": TWELVE, "ceilings": False})
    return list(plan(made))


def test_a_budget_of_every_method_is_planned_at_equal_steps() -> None:
    weak = with_budgets(net(training=RECIPE), budgets=SHARES)
    full = with_budgets(net("b", training=RECIPE), budgets=SHARES, annotator=Choice(name="full"))
    runs = planned(weak, full)
    assert [run.compared.train_images for run in runs] == [12, 24, 48, None] * 2
    assert [run.annotator for run in runs[:4]] == [
        *(f"image-level, {number} images" for number in (12, 24, 48)),
        "image-level",
    ]
    assert {run.method for run in runs} == {"a", "b"}
    made = [steps(run.compared.method.params, run.compared.train_images or 96) for run in runs]
    assert made == [240] * 8
    assert [run.compared.method.params["training"]["early_stopping"] for run in runs[:4]] == [24, 12, 6, 3]
    assert len({run.training_key for run in runs}) == 8


def test_all_of_the_images_are_the_method_itself() -> None:
    (alone,) = planned(net(training=RECIPE))
    assert planned(with_budgets(net(training=RECIPE), budgets=SHARES))[-1] == alone
    assert planned(with_budgets(net(training=RECIPE), train_share=1.0)) == [alone]


def test_a_method_without_epochs_learns_as_it_does() -> None:
    control = with_budgets(compared("centre-blob"), train_share=0.25)
    (run,) = planned(control)
    assert run.compared.train_images == 24
    assert run.compared.method.params == planned(compared("centre-blob"))[0].compared.method.params


def test_images_are_not_counted_in_vain() -> None:
    def fails() -> int:
        raise AssertionError("counted")

    methods = (net(), compared("centre-blob", train_images=3))
    assert expand(methods, fails) == methods


@given(st.integers(1, 5000), st.floats(0.01, 1), st.integers(1, 200), st.integers(1, 64))
def test_steps_differ_by_half_an_epoch_at_most(total: int, share: float, epochs: int, batch: int) -> None:
    method = net(training={"epochs": epochs, "batch_size": batch})
    found = at_share(method, share, total)
    number = found.train_images or total
    assert number == max(1, round(share * total))
    difference = steps(found.method.params, number) - steps(method.method.params, total)
    assert abs(difference) <= math.ceil(number / batch) / 2


def test_nested_training_is_matched_and_the_original_is_left_alone() -> None:
    params = {"student": {"name": "net", "params": {**NET, "training": dict(RECIPE)}}, "training": "no recipe"}
    changed = matched(params, 96, 12)
    assert changed["student"]["params"]["training"] == {"epochs": 80, "batch_size": 4, "early_stopping": 24}
    assert params["student"]["params"]["training"] == RECIPE
    assert changed["training"] == "no recipe"


def test_a_method_with_epochs_of_its_own_is_matched() -> None:
    (whole,) = planned(ComparedMethod(method=Choice(name="best-from-labels"), label="best"))
    changed = at_share(whole.compared, 0.25, 1024)
    assert changed.method.params["epochs"] == 4 * whole.compared.method.params["epochs"]


@pytest.mark.parametrize(
    ("given_fields", "message"),
    [
        ({"train_images": 3, "budgets": [0.5]}, "got train_images and budgets"),
        ({"train_share": 0.5, "train_images": 3}, "got train_images and train_share"),
        ({"budgets": [0.5, 0.5]}, "expected distinct shares"),
        ({"budgets": [1.5]}, "less than or equal to 1"),
        ({"train_share": 0}, "greater than 0"),
    ],
)
def test_amounts_that_contradict_each_other_are_refused(given_fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ComparedMethod(method=Choice(name="micra-net"), **given_fields)
