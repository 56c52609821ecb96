"""A random forest as plain arrays: trained by scikit-learn, saved as tensors, evaluated by scikit-learn's own trees.

A new forest and a loaded one are evaluated by the same code, and so give the same probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree._tree import NODE_DTYPE, Tree
from torch import Tensor

from micraframe.types import BoolArray, FloatArray, Progress

CHUNK = 2**14
"""Rows that are evaluated together: few enough to stay in the processor's cache for all trees."""

STEP = 10
"""Trees per progress report."""


@dataclass(frozen=True, eq=False)
class Trees:
    """The nodes of T trees, one tree after the other, N nodes in total.

    A node passes a row x to its left child if x[feature] <= threshold, and otherwise to its right child. Children are
    numbered within their tree: the root is 0, and a child comes after its parent.

    Attributes:
        sizes: int64 (T,): number of nodes of each tree.
        left: int32 (N,): the left child, or -1 for a leaf.
        right: int32 (N,): the right child, or -1 for a leaf.
        feature: int32 (N,): index of the feature that a node compares; -2 in a leaf.
        threshold: float64 (N,).
        value: float32 (N, K): weighted share of the training rows in the node that belong to each class.
        features: Number of features F of a row.

    Raises:
        RuntimeError: If the arrays do not fit each other, or are not trees.
    """

    sizes: npt.NDArray[np.int64]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    value: FloatArray
    features: int

    def __post_init__(self) -> None:
        # scikit-learn follows child indices without checking them, out of its own memory too.
        nodes = len(self.value)
        if self.sizes.ndim != 1 or not self.sizes.size or self.sizes.min() < 1 or self.sizes.sum() != nodes:
            raise RuntimeError(f"expected trees of {nodes} nodes in total, got {self.sizes.tolist()}")
        for name in ("left", "right", "feature", "threshold"):
            if getattr(self, name).shape != (nodes,):
                raise RuntimeError(f"expected {name} of shape ({nodes},), got {getattr(self, name).shape}")
        number = np.arange(nodes) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        inner = self.left != -1
        size = np.repeat(self.sizes, self.sizes)
        onward = [(number < child) & (child < size) for child in (self.left, self.right)]
        known = (self.feature >= 0) & (self.feature < self.features)
        if not (onward[0] & onward[1] & known)[inner].all() or (self.right[~inner] != -1).any():
            raise RuntimeError("expected nodes with children after them and known features, got others")
        if self.value.ndim != 2 or not ((self.value >= 0) & (self.value <= 1)).all():
            raise RuntimeError("expected values (N, K) in [0, 1], got others")

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays by name, as a model file holds them."""
        arrays = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in _TYPES}
        return {**arrays, "features": torch.tensor(self.features)}


_TYPES: Mapping[str, Any] = {
    "sizes": np.int64,
    "left": np.int32,
    "right": np.int32,
    "feature": np.int32,
    "threshold": np.float64,
    "value": np.float32,
}


def from_tensors(tensors: Mapping[str, Tensor]) -> Trees:
    """Return the trees whose `Trees.tensors` these are.

    Raises:
        KeyError: If a tensor is missing.
        RuntimeError: If a tensor has another type, or they are not trees.
    """
    arrays = {name: tensors[name].numpy() for name in _TYPES}
    for name, dtype in _TYPES.items():
        if arrays[name].dtype != dtype:
            raise RuntimeError(f"expected {name} of type {dtype.__name__}, got {arrays[name].dtype}")
    return Trees(**arrays, features=int(tensors["features"]))


def grow(
    rows: FloatArray,
    classes: BoolArray,
    weights: npt.NDArray[np.float64],
    trees: int,
    min_samples_leaf: int,
    seed: int,
    progress: Progress,
) -> Trees:
    """Train a random forest (Breiman 2001); a row may belong to several classes or to none.

    All classes share the trees: a split minimises their mean impurity.

    Args:
        rows: float32 (n, F).
        classes: bool (n, K).
        weights: float64 (n,): weight of each row.
        trees: Number of trees.
        min_samples_leaf: Minimum number of rows in a leaf.
        seed: Determines the rows and features that each tree is trained on.
        progress: Progress callback.
    """
    count = classes.shape[1]
    model = RandomForestClassifier(
        min_samples_leaf=min_samples_leaf, random_state=seed % 2**32, n_jobs=torch.get_num_threads(), warm_start=True
    )
    targets = classes if count > 1 else classes[:, 0]
    for done in [*range(STEP, trees, STEP), trees]:
        model.set_params(n_estimators=done).fit(rows, targets, weights)
        progress.advance("trees", done, trees)
    grown = [estimator.tree_ for estimator in model.estimators_]
    levels = model.classes_ if count > 1 else [model.classes_]
    # The shares of False and True, in this order; a class without both has one column.
    true = [np.flatnonzero(level) for level in levels]
    shares = np.concatenate([tree.value for tree in grown])
    value = np.zeros((len(shares), count), np.float32)
    for index, column in enumerate(true):
        if column.size:
            value[:, index] = shares[:, index, column[0]]
    left, right, feature = (
        np.concatenate([getattr(tree, name) for tree in grown]).astype(np.int32)
        for name in ("children_left", "children_right", "feature")
    )
    return Trees(
        sizes=np.array([tree.node_count for tree in grown], np.int64),
        left=left,
        right=right,
        feature=feature,
        threshold=np.concatenate([tree.threshold for tree in grown]),
        value=np.clip(value, 0, 1),
        features=rows.shape[1],
    )


@final
class TreePredictor:
    """Evaluates trees."""

    def __init__(self, trees: Trees) -> None:
        ends = np.cumsum(trees.sizes)
        self._classes = trees.value.shape[1]
        self._trees = [
            (_tree(trees, slice(start, end)), trees.value[start:end])
            for start, end in zip(ends - trees.sizes, ends, strict=True)
        ]

    def probabilities(self, features: FloatArray) -> FloatArray:
        """Return the probability of each class: the mean over the trees of its share in the leaf that a row reaches.

        Args:
            features: float32 (F, n).

        Returns:
            float32 (K, n), in [0, 1].
        """
        count = features.shape[1]
        found = np.empty((self._classes, count), np.float32)

        def evaluate(start: int) -> None:
            rows = np.ascontiguousarray(features[:, start : start + CHUNK].T)
            total = np.zeros((len(rows), self._classes))
            # Summed in the order of the trees, so that threads do not change the last bit.
            for tree, value in self._trees:
                total += value[tree.apply(rows)]
            found[:, start : start + CHUNK] = total.T / len(self._trees)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(evaluate, range(0, count, CHUNK)):
                pass
        return np.clip(found, 0, 1)


def _tree(trees: Trees, part: slice) -> Any:
    """Return a scikit-learn tree with these nodes; only its `apply` is used."""
    nodes = np.zeros(part.stop - part.start, NODE_DTYPE)
    nodes["left_child"], nodes["right_child"] = trees.left[part], trees.right[part]
    nodes["feature"], nodes["threshold"] = trees.feature[part], trees.threshold[part]
    tree = Tree(trees.features, np.ones(1, np.intp), 1)
    tree.__setstate__(
        {"max_depth": len(nodes), "node_count": len(nodes), "nodes": nodes, "values": np.zeros((len(nodes), 1, 1))}
    )
    return tree
