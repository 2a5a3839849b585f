"""What a policy is told of lengths: predictors in the place of a scenario's own predictions."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from envs.simulator import Result
from scripts.experiments.cases import Case, Episode
from scripts.experiments.contenders import Baseline, Contender, parse_router, standard_routers
from scripts.experiments.history import past_requests
from scripts.experiments.machine import code_identity, hash_files
from scripts.experiments.policy_file import PolicyFile

if TYPE_CHECKING:
    from predictors.response_length import LengthDistribution

PREDICTOR_PARTS = ("predictors", "scripts/experiments/predictions.py")
"""Code that predictions depend on, besides that of an episode."""
PREDICTOR_PACKAGES = ("torch",)
_KNOWN = ("oracle", "none", "majority", "sigma")
_STREAM = 7  # of an episode's seed, for the noise of `sigma`
_MAJORITY_EDGES = (256, 2048)  # those of the paper's agent (arXiv:2408.13510 A.9)


@dataclass(frozen=True)
class Source:
    """Where predicted lengths come from.

    Attributes:
        name: `oracle` (the truth), `none` (1 token for all: nothing is known), `majority` (the
            upper bound of the bucket that most past answers are in, for all; by the paper's three
            buckets), `sigma` (the truth times lognormal(0, level)), or a trained predictor: one
            that comes with the package, or a folder.
        level: Of `sigma`, its value; of a trained predictor, the level of the quantile that is
            told, 0 for its single number.
    """

    name: str
    level: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read `oracle`, `none`, `majority`, `sigma=S`, `NAME` or `NAME:quantile=Q`.

        Raises:
            ValueError: The text has another form, or there is no such predictor.
        """
        head, equals, value = text.partition("=")
        if head == "sigma":
            sigma = _number(value) if equals else math.nan
            if not 0 <= sigma < math.inf:
                raise ValueError(f"--predictor {text}: write sigma=0.5, a number of 0 or more")
            return cls("sigma", sigma)
        name, has_quantile, value = text.partition(":quantile=")
        found = cls(name, _number(value) if has_quantile else 0.0)
        if has_quantile and (name in _KNOWN or not 0 < found.level < 1):
            raise ValueError(
                f"--predictor {text}: a trained predictor has quantiles of levels within 0 and 1"
            )
        if name not in _KNOWN:
            _predictors().find_predictor(name)
        return found

    @property
    def label(self) -> str:
        """Name in tables and files; of a folder, its last part."""
        if self.name == "sigma":
            return f"sigma={self.level:g}"
        name = self.name if self.name in _KNOWN else Path(self.name).name
        return f"{name}:quantile={self.level:g}" if self.level else name

    def check(self, cases: Sequence[Case]) -> None:
        """See that it can predict the requests of scenarios, before anything is run.

        Raises:
            ValueError: It reads texts where there are none, or past requests where there are none.
        """
        for case in cases:
            if self.name == "majority" and past_requests(case.scenario) is None:
                raise ValueError(f"--predictor majority: {case.name} is a trace without a past")
            workload = case.scenario.workload
            if self.name in _KNOWN:
                continue
            if workload.kind == "prompts":
                found = _predictors()
                note = found.note_of(case.scenario)
                found.refuse_leaks(self.name, _load(self.name).data, note)
            elif _load(self.name).reads_text:
                raise ValueError(
                    f"--predictor {self.name} reads prompts, and {case.name} has none: give a "
                    "scenario with a workload of kind prompts (docs/predictors.md)"
                )

    def tell(self, episode: Episode) -> Episode:
        """The episode with these predictions in the place of its own."""
        tokens = _tokens(
            _Drawn(episode.scenario.name, episode.seed, len(episode.table), episode), self
        )
        return replace(episode, table=episode.table.replace(predicted_output_tokens=tokens))

    def identity(self) -> dict[str, Any]:
        """Everything about it that can change a result, as plain data."""
        code = code_identity(PREDICTOR_PARTS, PREDICTOR_PACKAGES)
        about: dict[str, Any] = {"level": self.level} | code
        if self.name in _KNOWN:
            return about | {"name": self.name}
        folder = _predictors().find_predictor(self.name)
        files = [path for path in folder.iterdir() if path.suffix in {".json", ".safetensors"}]
        return about | {"files": hash_files(files, folder)}


@dataclass(frozen=True)
class Told:
    """A policy that is told lengths by a source.

    Attributes:
        policy: The policy.
        source: The source.
    """

    policy: Baseline | PolicyFile
    source: Source

    @property
    def label(self) -> str:
        """Name in tables and files."""
        return f"{self.policy.label}@{self.source.label}"

    def run(self, episode: Episode) -> Result:
        """Serve all requests of the episode."""
        return self.policy.run(self.source.tell(episode))

    def identity(self) -> dict[str, Any]:
        """Everything about it that can change a result, as plain data."""
        return {"policy": self.policy.identity(), "prediction": self.source.identity()}


def length_aware_routers() -> list[str]:
    """The routing rules of the standard comparison that read predicted lengths."""
    return [name for name in standard_routers() if _reads(parse_router(name))]


def told(
    policies: Sequence[Baseline | PolicyFile], sources: Sequence[Source], cases: Sequence[Case]
) -> list[Contender]:
    """The policies, those that read predicted lengths once for each source.

    Where an engine reads predictions itself, to reserve KV cache or to order its queue, all do.
    """
    engines = [engine for case in cases for engine in case.engines()]
    engines_read = any(e.admission == "reserve" or e.scheduler.uses_prediction for e in engines)
    found: list[Contender] = []
    for policy in policies:
        if engines_read or _reads(policy):
            found += [Told(policy, source) for source in sources]
        else:
            found.append(policy)
    return found


def _reads(policy: Baseline | PolicyFile) -> bool:
    rule = policy.policy()
    told_truth = rule.oracle
    return (rule.uses_prediction or rule.queue_order == "sjf") and not told_truth


@dataclass(frozen=True)
class _Drawn:
    """An episode by what it was drawn from, so that all policies share its predictions."""

    scenario: str
    seed: int
    requests: int
    episode: Episode = field(compare=False)


@lru_cache(maxsize=64)
def _tokens(drawn: _Drawn, source: Source) -> np.ndarray:
    episode, table = drawn.episode, drawn.episode.table
    truth = np.asarray(table.output_tokens)
    if source.name == "oracle":
        return truth
    if source.name == "none":
        return np.ones(len(table), np.int64)
    if source.name == "sigma":
        stream = np.random.SeedSequence([drawn.seed, _STREAM]).generate_state(1)
        noisy = table.with_predictions(source.level, seed=int(stream[0]))
        return np.asarray(noisy.predicted_output_tokens)
    if source.name == "majority":
        past = past_requests(episode.scenario)
        assert past is not None
        return np.full(len(table), _majority(np.asarray(past.output_tokens)))
    return _predicted(source.name, drawn).predicted_tokens(source.level or None)


def _majority(past: np.ndarray) -> int:
    """Upper bound of the bucket of most past answers; of the last one, the longest answer."""
    which = np.searchsorted(_MAJORITY_EDGES, past)
    bounds = (*_MAJORITY_EDGES, int(past.max()))
    return bounds[int(np.bincount(which).argmax())]


@lru_cache(maxsize=8)
def _predicted(name: str, drawn: _Drawn) -> LengthDistribution:
    """Distributions of an episode's lengths, shared by all quantiles that are told."""
    predictors, episode = _predictors(), drawn.episode
    texts = predictors.texts_of_requests(episode.scenario, episode.table)
    examples = predictors.Examples.from_table(episode.table, texts)
    found: LengthDistribution = _load(name).predict(examples)
    return found


@lru_cache(maxsize=8)
def _load(name: str) -> Any:
    import torch

    torch.set_num_threads(1)
    return _predictors().load_predictor(name)


def _predictors() -> Any:
    # Torch, which nobody must have or wait for who compares without predictors.
    try:
        return importlib.import_module("predictors.response_length")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--predictor needs the package {error.name}: pip install 'servegym[predictors]'"
        ) from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
