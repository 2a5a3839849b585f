"""Served latency over concurrency: what is calibrated on some configurations, scored on others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from envs.hardware import CostModel, kv_capacity_tokens
from envs.hardware.fitting.served import served_law, served_points
from scripts.validation.closed_loop import Harness, Load, measure

Key = tuple[str, str, int, str, str]
"""Model, GPU, tensor parallel degree, engine, precision."""

INFERENCEMAX = {(1024, 1024), (1024, 8192), (8192, 1024)}
"""Stated prompt and output tokens of InferenceMAX, whose client is published: ten calls for each
connection, all at once, lengths from 80 % of the stated ones up to them."""

ENGINES = (("chunked", 2_048), ("chunked", 8_192), ("chunked", 16_384), ("prefill_first", 8_192))
"""Batching and tokens a step that are tried."""

LENGTHS = (1.0, 0.8)
"""Shortest share of the stated lengths that is tried where the client is not published."""

ROUNDS = 3
"""How often the law is corrected by what the simulator makes of it."""

COEFFICIENTS = ("overhead_s", "decode_sequence_s", "context_s", "linear_s")


@dataclass(frozen=True)
class Configuration:
    """One measured (model, GPU, tensor parallel degree, engine, precision).

    Attributes:
        key: Which.
        points: Columns isl, osl, batch_size (the concurrency), silicon_ttft_ms, silicon_tpot_ms.
        harness: Name of the client that measured it.
    """

    key: Key
    points: pd.DataFrame
    harness: str

    @property
    def name(self) -> str:
        """Name in tables."""
        model, gpu, degree, engine, precision = self.key
        return f"{model} on {degree} {gpu}, {engine} {precision}"

    @property
    def group(self) -> tuple[str, str]:
        """Configurations with one client and one engine share what is learned of them."""
        return self.harness, self.key[3]

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        model, gpu, degree, _, precision = self.key
        return kv_capacity_tokens(model, gpu, degree, precision=precision)

    def loads(self, points: pd.DataFrame) -> list[Load]:
        """The points as loads of the simulator."""
        columns = points[["isl", "osl", "batch_size"]].astype(int)
        return [Load(*row) for row in columns.itertuples(index=False)]


@dataclass(frozen=True)
class Outside:
    """What a call takes outside the engine: seconds, and seconds for each prompt token."""

    fixed_s: float
    token_s: float

    def of(self, isl: np.ndarray) -> np.ndarray:
        """Seconds of calls with so many prompt tokens."""
        return np.asarray(self.fixed_s + self.token_s * isl)


@dataclass(frozen=True)
class Learned:
    """What other configurations of a group taught.

    Attributes:
        harness: Client and batching.
        outside: Time outside the engine.
        of: The configurations that taught it.
    """

    harness: Harness
    outside: Outside
    of: tuple[str, ...]


def read_configurations(data: Path) -> list[Configuration]:
    """All dense configurations with points enough (`envs.hardware.fitting.served`)."""
    out = []
    for key, points in served_points(data).items():
        shapes = set(zip(points["isl"].astype(int), points["osl"].astype(int), strict=True))
        harness = "InferenceMAX" if shapes <= INFERENCEMAX else "AIPerf"
        out.append(Configuration(key, points, harness))
    return out


def simulate_points(
    cost: CostModel, configuration: Configuration, points: pd.DataFrame, how: Harness, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds to the first token inside the engine, and seconds a token, of each point."""
    room = configuration.kv_tokens
    pairs = [measure(cost, room, load, how, seed) for load in configuration.loads(points)]
    first, between = np.array(pairs).T
    return first, between


def law(
    configuration: Configuration, points: pd.DataFrame, how: Harness, seed: int
) -> tuple[CostModel, np.ndarray, np.ndarray]:
    """The step law with which the simulator meets the TPOT of these points, and what it gives.

    The shipped fit takes for granted that prompts fall evenly between the steps. Here what the
    simulator makes of its law corrects the targets of the next fit.

    Returns:
        The law, and seconds to the first token and seconds a token of the points.
    """
    target = points["silicon_tpot_ms"].to_numpy(float)
    cost = served_law(configuration.key, points)
    first, between = simulate_points(cost, configuration, points, how, seed)
    best = (_miss(between * 1e3, target), cost, first, between)
    wanted = target.copy()
    for _ in range(ROUNDS):
        wanted = wanted * np.clip(target / (between * 1e3), 0.5, 2.0)
        cost = served_law(configuration.key, points.assign(silicon_tpot_ms=wanted))
        first, between = simulate_points(cost, configuration, points, how, seed)
        miss = _miss(between * 1e3, target)
        if miss < best[0]:
            best = (miss, cost, first, between)
    return best[1:]


def learn_outside(first: np.ndarray, isl: np.ndarray, measured: np.ndarray) -> Outside:
    """The time outside the engine that explains TTFT best.

    Args:
        first: (n,) simulated seconds to the first token inside the engine.
        isl: (n,) prompt tokens.
        measured: (n,) measured seconds to the first token.
    """
    scale = np.array([30e-3, 10e-6])

    def residual(x: np.ndarray) -> np.ndarray:
        fixed, token = x * scale
        return np.asarray(np.log((first + fixed + token * isl) / measured))

    found = least_squares(residual, np.ones(2), bounds=(0, np.inf), loss="soft_l1", f_scale=0.1)
    fixed, token = found.x * scale
    return Outside(float(fixed), float(token))


def harnesses(name: str) -> list[Harness]:
    """What is tried for a client: every batching, and every spread of lengths unless published."""
    lengths = (0.8,) if name == "InferenceMAX" else LENGTHS
    return [Harness(kind, tokens, short) for kind, tokens in ENGINES for short in lengths]  # type: ignore[arg-type]


def learn(
    configurations: Sequence[Configuration], seed: int, advance: Callable[[int], None]
) -> Learned:
    """Choose the harness, and the time outside the engine, by the configurations of one group."""
    best: tuple[float, Learned] | None = None
    names = tuple(configuration.name for configuration in configurations)
    for how in harnesses(configurations[0].harness):
        firsts, isls, ttfts, misses = [], [], [], []
        for configuration in configurations:
            points = configuration.points
            _, first, between = law(configuration, points, how, seed)
            firsts.append(first)
            isls.append(points["isl"].to_numpy(float))
            ttfts.append(points["silicon_ttft_ms"].to_numpy(float) * 1e-3)
            misses.append(_miss(between * 1e3, points["silicon_tpot_ms"].to_numpy(float)))
            advance(1)
        first, isl, ttft = map(np.concatenate, (firsts, isls, ttfts))
        outside = learn_outside(first, isl, ttft)
        miss = float(np.mean(misses)) + _miss(first + outside.of(isl), ttft)
        if best is None or miss < best[0]:
            best = (miss, Learned(how, outside, names))
    assert best is not None
    return best[1]


def score(configuration: Configuration, learned: Learned, seed: int) -> pd.DataFrame:
    """Simulate every point with a law that was fitted to the TPOT of every other point.

    The points are parted in two, in turn; the law of one half is scored on the other. TTFT of
    this configuration is never used.

    Returns:
        The points with the columns ttft_ms and tpot_ms.
    """
    points = configuration.points
    parts = []
    for half in (0, 1):
        mine = points.iloc[half::2]
        cost, _, _ = law(configuration, points.iloc[1 - half :: 2], learned.harness, seed)
        first, between = simulate_points(cost, configuration, mine, learned.harness, seed)
        outside = learned.outside.of(mine["isl"].to_numpy(float))
        parts.append(mine.assign(ttft_ms=(first + outside) * 1e3, tpot_ms=between * 1e3))
    return pd.concat(parts).sort_index()


def folds(configurations: Iterable[Configuration]) -> list[tuple[list[Configuration], ...]]:
    """Pairs of (configurations that teach, configurations that are scored), within groups.

    Of a group every second one, by name, teaches the others, and the other way round; a group
    of one can not be scored.
    """
    groups: dict[tuple[str, str], list[Configuration]] = {}
    for configuration in sorted(configurations, key=lambda c: c.name):
        groups.setdefault(configuration.group, []).append(configuration)
    return [
        (members[1 - part :: 2], members[part::2])
        for members in groups.values()
        if len(members) > 1
        for part in (0, 1)
    ]


def without_fit_range(cost: CostModel) -> CostModel:
    """The cost model without the range of its fit, which a harness may leave."""
    return dataclasses.replace(cost, fit_seqs=0, fit_tokens=0, fit_context=0)


def _miss(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean absolute logarithm of the ratio."""
    return float(np.abs(np.log(found / wanted)).mean())
