from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from micraframe_forest import trees as module
from micraframe_forest.trees import Forest, from_tensors, grow
from sklearn.ensemble import RandomForestClassifier

from micraframe.errors import ModelError
from micraframe.types import Progress


def rows(count=400, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    return x, np.stack([x[:, index] + x[:, index + 1] ** 2 > 0.5 for index in range(classes)], axis=1)


@pytest.fixture(scope="module")
def grown():
    x, y = rows()
    return grow(x, y, np.ones(len(x)), 12, 1, seed=5)


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_are_scikit_learns(classes):
    x, y = rows(classes=classes)
    weights = np.random.default_rng(1).random(len(x)) + 0.5
    ours = Forest(grow(x, y, weights, 25, 2, seed=5)).probabilities(rows(1000, seed=2)[0].T)
    peer = RandomForestClassifier(25, min_samples_leaf=2, random_state=5).fit(x, y if classes > 1 else y[:, 0], weights)
    told = peer.predict_proba(rows(1000, seed=2)[0])
    wanted = np.stack([one[:, 1] for one in (told if classes > 1 else [told])])
    np.testing.assert_allclose(ours, wanted, atol=1e-6)
    assert np.ptp(ours) > 0.5


def test_probabilities_are_what_the_arrays_say(grown):
    """The nodes are followed one by one, without scikit-learn."""
    x = rows(50, seed=3)[0]
    wanted = np.zeros((3, 50))
    for start, size in zip(np.cumsum(grown.sizes) - grown.sizes, grown.sizes, strict=True):
        left, right, feature, threshold, value = (
            getattr(grown, name)[start : start + size] for name in ("left", "right", "feature", "threshold", "value")
        )
        for number, row in enumerate(x):
            node = 0
            while left[node] != -1:
                node = left[node] if row[feature[node]] <= threshold[node] else right[node]
            wanted[:, number] += value[node] / len(grown.sizes)
    np.testing.assert_allclose(Forest(grown).probabilities(x.T), wanted, atol=1e-6)


def test_tensors_bring_the_same_forest_back(grown):
    loaded = from_tensors(grown.tensors())
    x = rows(500, seed=3)[0].T
    assert Forest(loaded).probabilities(x).tobytes() == Forest(grown).probabilities(x).tobytes()


def test_threads_and_chunks_change_no_byte(grown, monkeypatch):
    x = rows(500, seed=3)[0].T
    wanted = Forest(grown).probabilities(x).tobytes()
    monkeypatch.setattr(module, "CHUNK", 37)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert Forest(grown).probabilities(x).tobytes() == wanted
        again = grow(*rows(), np.ones(400), 12, 1, seed=5)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, again.tensors()[name]) for name, one in grown.tensors().items())


def test_a_class_that_is_never_or_always_there():
    x, y = rows()
    y[:, 0], y[:, 2] = False, True
    found = Forest(grow(x, y, np.ones(len(x)), 3, 1, seed=0)).probabilities(x.T)
    assert (found[0] == 0).all()
    assert (found[2] == 1).all()
    assert np.mean((found[1] > 0.5) == y[:, 1]) > 0.9


def test_progress_is_told_of_all_trees():
    told = []

    class Listener(Progress):
        def advance(self, label, done, total, numbers=None):
            told.append((label, done, total))

    x, y = rows(60)
    grow(x, y, np.ones(len(x)), 13, 1, 0, Listener())
    assert told == [("trees", 10, 13), ("trees", 13, 13)]


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
def test_nodes_that_lead_astray_are_refused(grown, name, value):
    assert grown.left[0] != -1
    with pytest.raises(ModelError, match="leads nowhere"):
        change(grown, **{name: edited(getattr(grown, name), 0, value)})


def test_arrays_that_do_not_fit_are_refused(grown):
    with pytest.raises(ModelError, match="their sum is wanted"):
        change(grown, sizes=grown.sizes[:-1])
    with pytest.raises(ModelError, match="threshold of shape"):
        change(grown, threshold=grown.threshold[:-1])
    with pytest.raises(ModelError, match="shares that are not in"):
        change(grown, value=edited(grown.value, 0, np.nan))
    tensors = grown.tensors()
    with pytest.raises(ModelError, match="has no left; it is not that of a forest"):
        from_tensors({name: one for name, one in tensors.items() if name != "left"})
    with pytest.raises(ModelError, match="threshold of the forest is float32; float64 is wanted"):
        from_tensors(tensors | {"threshold": tensors["threshold"].float()})
