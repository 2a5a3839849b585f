"""Predictors without gradients, to hold the learned ones against: counts, trees, TF-IDF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from envs.scenarios.strict import Strict, validated
from predictors.response_length.buckets import bucket_of, edges_of, fine_edges, inner_shapes
from predictors.response_length.distribution import (
    LengthDistribution,
    from_quantiles,
    from_table,
)
from predictors.response_length.encoders import metadata_numbers
from predictors.response_length.examples import Examples, hint_of, texts_of
from predictors.response_length.settings import Buckets, DataNote
from predictors.response_length.storage import (
    DESCRIPTION,
    read_description,
    read_tensors,
    write_predictor,
)
from predictors.response_length.trees import Trees, scikit

Floats = npt.NDArray[np.float64]
Kind = Literal["majority", "task_mean", "forest", "boosting", "boosting_text", "tfidf"]

KINDS: dict[Kind, str] = {
    "majority": "the most frequent bucket for all",
    "task_mean": "the mean of the task",
    "forest": "random forest on metadata (arXiv:2408.13510 A.12)",
    "boosting": "gradient boosting of log length on prompt length and task",
    "boosting_text": "the same with 128 directions of TF-IDF",
    "tfidf": "TF-IDF of words and pairs, logistic regression on buckets",
}
"""What can be fitted, and what it is."""
_LEVELS = (0.01, 0.05, *(i / 20 for i in range(2, 19)), 0.95, 0.99)
_STEPS = 8
_FEWEST = 40  # validation errors from which quantiles of a step are taken
_DIRECTIONS = 128


class Recipe(Strict):
    """What a classical predictor is, as it stands in `predictor.json`."""

    kind: Kind
    hint: bool = True
    """Whether it is told the task."""
    buckets: Buckets = "five"
    """Buckets of those that predict buckets."""
    seed: int = Field(default=0, ge=0)
    """Seed of trees."""
    data: DataNote = DataNote(name="")
    edges: list[int] = Field(default_factory=list)
    applications: list[str] = Field(default_factory=list)
    words: list[str] = Field(default_factory=list)
    weights_sha256: str = ""


@dataclass(eq=False)
class ClassicalPredictor:
    """A fitted one.

    Attributes:
        recipe: What it is.
        tensors: Its numbers.
    """

    recipe: Recipe
    tensors: dict[str, torch.Tensor]
    _TEXT: ClassVar[tuple[Kind, ...]] = ("tfidf", "boosting_text")

    def __post_init__(self) -> None:
        self._trees = Trees.from_tensors(self.tensors) if "roots" in self.tensors else None

    @property
    def data(self) -> DataNote:
        """What it was fitted on."""
        return self.recipe.data

    @property
    def hint(self) -> bool:
        """Whether it is told the task."""
        return self.recipe.hint

    @property
    def reads_text(self) -> bool:
        """Whether it needs prompts."""
        return self.recipe.kind in self._TEXT

    def predict(self, examples: Examples) -> LengthDistribution:
        """The distributions of the answers' lengths, one a request.

        Raises:
            ValueError: A text predictor is given no prompts, or there are no requests.
        """
        if not len(examples):
            raise ValueError("there are no requests to predict")
        kind = self.recipe.kind
        if kind == "task_mean":
            place = _places(self.recipe, examples)
            below, mean = self._array("below")[place], self._array("mean")[place]
            return from_table(fine_edges(), below, mean)
        if kind in {"boosting", "boosting_text"}:
            return self._around(self._score(examples))
        if kind == "majority":
            shares = np.broadcast_to(self._array("shares"), (len(examples), 1 + self._count()))
        elif kind == "forest":
            assert self._trees is not None
            votes = self._trees.total(_metadata(self.recipe, examples))
            shares = votes / votes.sum(axis=1, keepdims=True)
        else:
            raw = np.asarray(self._words(examples) @ self._array("coefficients").T) + self._array(
                "intercepts"
            )
            raw = np.exp(raw - raw.max(axis=1, keepdims=True))
            shares = raw / raw.sum(axis=1, keepdims=True)
        return from_table(fine_edges(), shares @ self._array("shapes"))

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""
        about = self.recipe.model_dump(exclude={"kind", "weights_sha256"})
        write_predictor(folder, self.recipe.kind, about, self.tensors)

    @classmethod
    def load(cls, folder: Path) -> ClassicalPredictor:
        """Rebuild one from its folder.

        Raises:
            ValueError: A file cannot be read, was changed, or does not fit the other.
        """
        about = read_description(folder)
        recipe = validated(Recipe, about, str(folder / DESCRIPTION))
        return cls(recipe, read_tensors(folder, about))

    def _array(self, name: str) -> Floats:
        return self.tensors[name].numpy()

    def _count(self) -> int:
        return len(self.recipe.edges)

    def _score(self, examples: Examples) -> Floats:
        """(n,) predicted natural logarithm of the length."""
        assert self._trees is not None
        features = _metadata(self.recipe, examples)
        if self.recipe.kind == "boosting_text":
            extra = np.asarray(self._words(examples) @ self._array("directions").T)
            features = np.concatenate([features, extra.astype(np.float32)], axis=1)
        start, rate = self._array("start")
        total: Floats = start + rate * self._trees.total(features)[:, 0]
        return total

    def _words(self, examples: Examples) -> Any:
        """(n, words) sparse TF-IDF."""
        vectorizer = _tfidf(self.recipe, self._array("idf"))
        return vectorizer.transform(_texts(self.recipe, examples))

    def _around(self, score: Floats) -> LengthDistribution:
        """The errors of like scores around each score."""
        step = np.searchsorted(self._array("steps"), score)
        logs = score[:, None] + self._array("errors")[step]
        return from_quantiles(_LEVELS, np.exp(logs), np.exp(score))


def fit(recipe: Recipe, examples: Examples, validation: Examples) -> ClassicalPredictor:
    """Fit a classical predictor.

    Args:
        recipe: What to fit; what it learns of names and buckets is filled in.
        examples: Examples to learn from.
        validation: Others, on which the spread of errors is measured.

    Raises:
        ValueError: The examples lack what it reads, or scikit-learn is absent.
    """
    truth = examples.truth()
    learned: dict[str, Any] = {"applications": sorted(set(examples.application))}
    if recipe.kind in {"majority", "forest", "tfidf"}:
        learned["edges"] = list(edges_of(recipe.buckets, truth))
    recipe = recipe.model_copy(update=learned)
    arrays: dict[str, npt.NDArray[Any]] = {}
    trees: dict[str, torch.Tensor] = {}
    which = bucket_of(truth, recipe.edges) if recipe.edges else np.zeros(0, np.int64)
    if recipe.edges:
        arrays["shapes"] = inner_shapes(truth, recipe.edges, fine_edges())
    if recipe.kind == "majority":
        counts = np.bincount(which, minlength=len(recipe.edges) + 1)
        arrays["shares"] = np.eye(len(counts))[counts.argmax()]
    elif recipe.kind == "task_mean":
        arrays["below"], arrays["mean"] = _by_task(recipe, examples)
    elif recipe.kind == "forest":
        forest = scikit("ensemble").RandomForestClassifier(
            200, min_samples_leaf=5, random_state=recipe.seed
        )
        forest.fit(_metadata(recipe, examples), which)
        trees = _complete(Trees.of(forest.estimators_), forest.classes_, len(recipe.edges) + 1)
    elif recipe.kind == "tfidf":
        recipe, arrays["idf"], words = _fit_tfidf(recipe, examples)
        model = scikit("linear_model").LogisticRegression(C=10.0, max_iter=300)
        model.fit(words, which)
        arrays |= _full_rows(model, len(recipe.edges) + 1)
    else:
        features = _metadata(recipe, examples)
        if recipe.kind == "boosting_text":
            recipe, arrays["idf"], words = _fit_tfidf(recipe, examples)
            count = min(_DIRECTIONS, words.shape[1] - 1)
            svd = scikit("decomposition").TruncatedSVD(count, random_state=recipe.seed).fit(words)
            arrays["directions"] = svd.components_
            extra = np.asarray(words @ svd.components_.T)
            features = np.concatenate([features, extra.astype(np.float32)], axis=1)
        model = scikit("ensemble").GradientBoostingRegressor(
            n_estimators=300,
            max_depth=5,
            learning_rate=0.1,
            subsample=0.7,
            min_samples_leaf=10,
            max_features=min(24, features.shape[1]),
            random_state=recipe.seed,
        )
        model.fit(features, np.log(truth))
        trees = Trees.of(model.estimators_[:, 0]).tensors()
        arrays["start"] = np.array([float(np.log(truth).mean()), model.learning_rate])
        arrays |= {"steps": np.zeros(0), "errors": np.zeros((1, len(_LEVELS)))}
    found = ClassicalPredictor(recipe, trees | _as_tensors(arrays))
    if "errors" in arrays:
        score = found._score(validation)
        found.tensors |= _as_tensors(_errors(score, np.log(validation.truth()) - score))
    return found


def _errors(score: Floats, error: Floats) -> dict[str, npt.NDArray[Any]]:
    """Quantiles of the errors by steps of the score."""
    count = max(1, min(_STEPS, len(score) // _FEWEST))
    steps = np.quantile(score, np.arange(1, count) / count)
    place = np.searchsorted(steps, score)
    rows = [error[place == i] if (place == i).any() else error for i in range(count)]
    return {"steps": steps, "errors": np.array([np.quantile(row, _LEVELS) for row in rows])}


def _by_task(recipe: Recipe, examples: Examples) -> tuple[Floats, Floats]:
    """Distribution and mean of each task, after those of all together for an unknown one."""
    truth, fine = examples.truth(), fine_edges()
    place = _places(recipe, examples)
    rows = [truth, *(truth[place == i + 1] for i in range(len(recipe.applications)))]
    below = [np.searchsorted(np.sort(row), fine, side="right") / len(row) for row in rows]
    return np.array(below), np.array([row.mean() for row in rows])


def _places(recipe: Recipe, examples: Examples) -> npt.NDArray[np.int64]:
    place = {name: i + 1 for i, name in enumerate(recipe.applications)}
    return np.array([place.get(name, 0) for name in examples.application], np.int64)


def _metadata(recipe: Recipe, examples: Examples) -> npt.NDArray[np.float32]:
    """(n, 4 + applications) numbers and, with the hint, the application as zeros and a one."""
    numbers = metadata_numbers(examples)
    if not recipe.hint:
        return numbers
    one_hot = np.eye(len(recipe.applications) + 1, dtype=np.float32)
    return np.concatenate([numbers, one_hot[_places(recipe, examples)][:, 1:]], axis=1)


def _texts(recipe: Recipe, examples: Examples) -> list[str]:
    texts = texts_of(examples)
    if not recipe.hint:
        return texts
    # One word, so that the task is a feature of its own.
    hints = [hint_of(task).replace(" ", "_") for task in examples.application]
    return [f"{text} {hint}" for text, hint in zip(texts, hints, strict=True)]


def _fit_tfidf(recipe: Recipe, examples: Examples) -> tuple[Recipe, Floats, Any]:
    vectorizer = scikit("feature_extraction.text").TfidfVectorizer(
        ngram_range=(1, 2), min_df=3, max_features=50_000, sublinear_tf=True
    )
    words = vectorizer.fit_transform(_texts(recipe, examples))
    names = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
    return recipe.model_copy(update={"words": names}), vectorizer.idf_, words


def _tfidf(recipe: Recipe, idf: Floats) -> Any:
    vectorizer = scikit("feature_extraction.text").TfidfVectorizer(
        ngram_range=(1, 2), vocabulary=recipe.words, sublinear_tf=True
    )
    vectorizer.idf_ = idf
    return vectorizer


def _full_rows(model: Any, buckets: int) -> dict[str, npt.NDArray[Any]]:
    """Coefficients with a row for each bucket, also for those of which there was no example."""
    coefficients = np.zeros((buckets, model.coef_.shape[1]))
    intercepts = np.full(buckets, -30.0)
    if len(model.classes_) == 2:  # scikit-learn then keeps the row of the second alone
        coefficients[model.classes_[1]], intercepts[model.classes_[1]] = (
            model.coef_[0],
            model.intercept_[0],
        )
        intercepts[model.classes_[0]] = 0.0
    else:
        coefficients[model.classes_], intercepts[model.classes_] = model.coef_, model.intercept_
    return {"coefficients": coefficients, "intercepts": intercepts}


def _complete(trees: Trees, classes: Any, buckets: int) -> dict[str, torch.Tensor]:
    """The trees with a column for each bucket, and leaves that sum to 1."""
    value = np.zeros((len(trees.value), buckets))
    value[:, classes] = trees.value / trees.value.sum(axis=1, keepdims=True)
    return trees.tensors() | {"value": torch.from_numpy(value)}


def _as_tensors(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
