"""Ensembles of decision trees as plain arrays: trained by scikit-learn, stored without pickles."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trees:
    """Trees whose nodes lie one after the other.

    Attributes:
        roots: (t,) node at which each tree begins.
        feature: (m,) feature that a node looks at; -1 at a leaf.
        threshold: (m,) at most this goes left.
        left: (m,) node on the left.
        right: (m,) node on the right.
        value: (m, k) what a leaf adds.
    """

    roots: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats

    @classmethod
    def of(cls, trees: Sequence[Any]) -> Trees:
        """Those of scikit-learn's tree estimators; values keep their last axis."""
        sizes = [tree.tree_.node_count for tree in trees]
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        parts = [tree.tree_ for tree in trees]

        def joined(name: str, shift: bool = False) -> npt.NDArray[Any]:
            arrays = [getattr(part, name) for part in parts]
            if shift:
                arrays = [array + root for array, root in zip(arrays, roots, strict=True)]
            return np.concatenate(arrays)

        leaf = joined("children_left") < 0
        return cls(
            roots,
            np.where(leaf, -1, joined("feature")).astype(np.int64),
            joined("threshold").astype(np.float64),
            np.where(leaf, 0, joined("children_left", True)).astype(np.int64),
            np.where(leaf, 0, joined("children_right", True)).astype(np.int64),
            joined("value")[:, 0, :].astype(np.float64),
        )

    def total(self, features: npt.NDArray[np.float32]) -> Floats:
        """(n, k) sums of the leaves that each row of (n, f) features reaches."""
        rows = np.arange(len(features))
        total = np.zeros((len(features), self.value.shape[1]))
        for root in self.roots:
            node = np.full(len(features), root)
            while (inner := self.feature[node] >= 0).any():
                # Leaves stay where they are; the feature -1 of a leaf is not used.
                at = features[rows, self.feature[node]]
                down = np.where(at <= self.threshold[node], self.left[node], self.right[node])
                node = np.where(inner, down, node)
            total += self.value[node]
        return total

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays, to be stored."""
        return {name: torch.from_numpy(values.copy()) for name, values in self.__dict__.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Trees:
        """What `tensors` gave.

        Raises:
            ValueError: One is missing, or a node names one that is not there.
        """
        try:
            found = cls(**{name: tensors[name].numpy() for name in cls.__dataclass_fields__})
        except KeyError as error:
            raise ValueError(f"the trees lack {error}") from None
        count = len(found.feature)
        for name in ("roots", "left", "right"):
            nodes = getattr(found, name)
            if len(nodes) and not (0 <= nodes.min() and nodes.max() < count):
                raise ValueError(f"the trees are damaged: {name} names nodes that are not there")
        inner = found.feature >= 0
        here = np.arange(count)
        # Children come after their parent, so that every walk ends.
        if (
            not (found.left[inner] > here[inner]).all()
            or not (found.right[inner] > here[inner]).all()
        ):
            raise ValueError("the trees are damaged: a node leads back to one before it")
        return found


def scikit(name: str) -> Any:
    """A module of scikit-learn, of which only training needs more than arrays.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{name}")
    except ModuleNotFoundError as error:
        if error.name != "sklearn":
            raise
        raise ValueError(
            "the classical predictors need scikit-learn: pip install 'servegym[predictors]'"
        ) from None
