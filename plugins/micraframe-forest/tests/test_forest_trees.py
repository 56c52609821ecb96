from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from micraframe_forest import trees as module
from micraframe_forest.trees import TreePredictor, from_tensors, grow
from sklearn.ensemble import RandomForestClassifier

from micraframe.types import Progress


def rows(count=400, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    return x, np.stack([x[:, index] + x[:, index + 1] ** 2 > 0.5 for index in range(classes)], axis=1)


@pytest.fixture(scope="module")
def grown():
    x, y = rows()
    return grow(x, y, np.ones(len(x)), 12, 1, 5, Progress())


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_are_scikit_learns(classes):
    x, y = rows(classes=classes)
    weights = np.random.default_rng(1).random(len(x)) + 0.5
    ours = TreePredictor(grow(x, y, weights, 25, 2, 5, Progress())).probabilities(rows(1000, seed=2)[0].T)
    peer = RandomForestClassifier(25, min_samples_leaf=2, random_state=5).fit(x, y if classes > 1 else y[:, 0], weights)
    theirs = peer.predict_proba(rows(1000, seed=2)[0])
    expected = np.stack([one[:, 1] for one in (theirs if classes > 1 else [theirs])])
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert np.ptp(ours) > 0.5


def test_probabilities_follow_from_the_arrays(grown):
    """The nodes are followed one by one, without scikit-learn."""
    x = rows(50, seed=3)[0]
    expected = np.zeros((3, 50))
    for start, size in zip(np.cumsum(grown.sizes) - grown.sizes, grown.sizes, strict=True):
        left, right, feature, threshold, value = (
            getattr(grown, name)[start : start + size] for name in ("left", "right", "feature", "threshold", "value")
        )
        for number, row in enumerate(x):
            node = 0
            while left[node] != -1:
                node = left[node] if row[feature[node]] <= threshold[node] else right[node]
            expected[:, number] += value[node] / len(grown.sizes)
    np.testing.assert_allclose(TreePredictor(grown).probabilities(x.T), expected, atol=1e-6)


def test_a_forest_survives_conversion_to_tensors(grown):
    loaded = from_tensors(grown.tensors())
    x = rows(500, seed=3)[0].T
    assert TreePredictor(loaded).probabilities(x).tobytes() == TreePredictor(grown).probabilities(x).tobytes()


def test_threads_and_chunks_change_no_byte(grown, monkeypatch):
    x = rows(500, seed=3)[0].T
    expected = TreePredictor(grown).probabilities(x).tobytes()
    monkeypatch.setattr(module, "CHUNK", 37)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert TreePredictor(grown).probabilities(x).tobytes() == expected
        again = grow(*rows(), np.ones(400), 12, 1, 5, Progress())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, again.tensors()[name]) for name, one in grown.tensors().items())


def test_a_class_that_is_never_or_always_present():
    x, y = rows()
    y[:, 0], y[:, 2] = False, True
    found = TreePredictor(grow(x, y, np.ones(len(x)), 3, 1, 0, Progress())).probabilities(x.T)
    assert (found[0] == 0).all()
    assert (found[2] == 1).all()
    assert np.mean((found[1] > 0.5) == y[:, 1]) > 0.9


def test_progress_reports_all_trees():
    reported = []

    class Listener(Progress):
        def advance(self, label, done, total, numbers=None):
            reported.append((label, done, total))

    x, y = rows(60)
    grow(x, y, np.ones(len(x)), 13, 1, 0, Listener())
    assert reported == [("trees", 10, 13), ("trees", 13, 13)]


def change(grown, **arrays):
    return dataclasses.replace(grown, **arrays)


def edited(array, index, value):
    copy = array.copy()
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    ("name", "value"),
    [("left", 0), ("left", 10**6), ("right", -1), ("right", -7), ("feature", 6), ("feature", -2)],
)
def test_invalid_nodes_are_rejected(grown, name, value):
    assert grown.left[0] != -1
    with pytest.raises(RuntimeError, match="children after them"):
        change(grown, **{name: edited(getattr(grown, name), 0, value)})


def test_inconsistent_arrays_are_rejected(grown):
    with pytest.raises(RuntimeError, match="expected trees of .* nodes in total"):
        change(grown, sizes=grown.sizes[:-1])
    with pytest.raises(RuntimeError, match="threshold of shape"):
        change(grown, threshold=grown.threshold[:-1])
    with pytest.raises(RuntimeError, match="in .0, 1., got others"):
        change(grown, value=edited(grown.value, 0, np.nan))
    tensors = grown.tensors()
    with pytest.raises(KeyError, match="left"):
        from_tensors({name: one for name, one in tensors.items() if name != "left"})
    with pytest.raises(RuntimeError, match="threshold of type float64, got float32"):
        from_tensors(tensors | {"threshold": tensors["threshold"].float()})
