from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from micraframe.training.recipe import Recipe, best, is_over, learning_rate, one_cycle, plateau

LOSSES = st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0]), max_size=40)


@given(LOSSES, st.integers(0, 4), st.sampled_from([0.1, 0.5]))
@settings(max_examples=60, deadline=None)
def test_plateau_is_torchs(losses: list[float], patience: int, factor: float) -> None:
    recipe = Recipe(plateau_patience=patience, plateau_factor=factor, minimum_learning_rate=1e-5)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.learning_rate)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=factor, patience=patience, threshold=0, min_lr=1e-5, eps=0
    )
    for loss in losses:
        theirs.step(loss)
    assert plateau(recipe, losses) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)


def test_plateau_is_fed_each_loss_not_the_lowest_so_far() -> None:
    """The running minimum of these losses is never worse than it was, the losses are."""
    assert plateau(Recipe(plateau_patience=2), [1.0, 5.0, 6.0, 7.0]) == pytest.approx(1e-4)


def test_plateau_never_raises_a_low_rate() -> None:
    assert plateau(Recipe(learning_rate=1e-6, plateau_patience=0), [1.0, 1.0, 1.0]) == 1e-6


def test_one_cycle_rises_and_falls() -> None:
    rates = [one_cycle(step / 1000) for step in range(1000)]
    top = rates.index(max(rates))
    assert top == 300
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[300] == 1
    assert rates[-1] < 1e-4
    assert rates[:301] == sorted(rates[:301])
    assert rates[300:] == sorted(rates[300:], reverse=True)


def test_one_cycle_is_torchs() -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=10_001, cycle_momentum=False)
    for step in range(0, 10_000):
        if step % 500 == 0:
            assert one_cycle(step / 10_000) == pytest.approx(theirs.get_last_lr()[0], abs=2e-3)
        optimiser.step()
        theirs.step()


@pytest.mark.parametrize("schedule", ["plateau", "one-cycle", "constant"])
def test_rates_are_positive_and_at_most_the_highest(schedule: str) -> None:
    recipe = Recipe(schedule=schedule)
    rates = [learning_rate(recipe, [1.0] * epoch, epoch / 100) for epoch in range(100)]
    assert all(0 < rate <= recipe.learning_rate for rate in rates)
    assert (len(set(rates)) == 1) == (schedule == "constant")


def test_training_ends_after_the_last_epoch() -> None:
    recipe = Recipe(epochs=3, early_stopping=None)
    assert [is_over(recipe, [1.0] * count) for count in range(5)] == [False, False, False, True, True]


def test_training_ends_when_nothing_gets_better() -> None:
    recipe = Recipe(early_stopping=2)
    assert not is_over(recipe, [])
    assert not is_over(recipe, [3.0, 2.0, 2.5])
    assert is_over(recipe, [3.0, 2.0, 2.5, 2.0])
    assert not is_over(recipe, [3.0, 2.0, 2.5, 1.9])


def test_the_best_is_the_first_of_equals() -> None:
    assert best([3.0, 1.0, 2.0, 1.0]) == 1
    assert best([]) == -1
    assert best([math.inf]) == 0
