"""Served latency over concurrency: what is calibrated on some configurations, scored on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from envs.hardware import CostModel
from envs.hardware.calibration import read_calibration
from envs.hardware.fitting.pooled import learn as efficiencies
from envs.hardware.fitting.served import served_law
from envs.hardware.roofline import Efficiencies, roofline
from envs.simulator.config import Batching
from scripts.validation.closed_loop import Harness, measure
from scripts.validation.configurations import INFERENCEMAX, Configuration

ENGINES: tuple[tuple[Batching, int], ...] = (
    ("chunked", 2_048),
    ("chunked", 8_192),
    ("chunked", 16_384),
    ("prefill_first", 8_192),
)
"""Batching and tokens a step that are tried."""

LENGTHS = (1.0, 0.8)
"""Shortest share of the stated lengths that is tried where the client is not published."""

Setting = tuple[int, int, int]
"""Prompt tokens, output tokens, tensor parallel degree: a server has its own settings for each."""

HELD = 20
"""Tokens that TensorRT-LLM's `stream_interval` keeps back in some runs: the client sees the first
one when the twentieth is there."""

HELD_IF = 0.95
"""An interval is believed where it brings the miss of TTFT below this share of that without it."""

ROUNDS, ROUNDS_TO_LEARN = 3, 2
"""How often a law is corrected by what the simulator makes of it."""


@dataclass(frozen=True)
class Outside:
    """What a call takes outside the engine: seconds, and seconds for each prompt token."""

    fixed_s: float
    token_s: float

    def of(self, points: pd.DataFrame) -> np.ndarray:
        """Seconds of the calls of each point."""
        return self.fixed_s + self.token_s * points["isl"].to_numpy(float)

    def __str__(self) -> str:
        return f"{self.fixed_s * 1e3:.0f} ms a call and {self.token_s * 1e6:.0f} µs a prompt token"


@dataclass(frozen=True)
class Learned:
    """What other configurations of a group taught.

    Attributes:
        harness: Client and batching.
        outside: Time outside the engine.
        held: Settings of the runs whose engine sent `HELD` tokens at once.
        of: The configurations that taught it.
        pairs: Their models and GPUs.
    """

    harness: Harness
    outside: Outside
    held: frozenset[Setting]
    of: tuple[str, ...]
    pairs: frozenset[tuple[str, str]] = frozenset()

    @property
    def text(self) -> str:
        """All that was learned, in words."""
        runs = ", ".join(f"{isl:,} + {osl:,} on {tp}" for isl, osl, tp in sorted(self.held))
        late = f"; {HELD} tokens are sent at once in runs of (tokens, GPUs) {runs}" if runs else ""
        return f"{self.harness}; outside the engine {self.outside}{late}"


def simulate_points(
    cost: CostModel, configuration: Configuration, points: pd.DataFrame, how: Harness, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds to the first token inside the engine, and seconds a token, of each point."""
    pairs = [measure(cost, load, how, seed) for load in configuration.loads(points)]
    first, between = np.array(pairs).T
    return first, between


def law(
    configuration: Configuration, points: pd.DataFrame, how: Harness, seed: int, rounds: int
) -> tuple[CostModel, np.ndarray, np.ndarray]:
    """The step law with which the simulator meets the TPOT of these points, and what it gives.

    The shipped fit takes for granted that prompts fall evenly between the steps. Here what the
    simulator makes of its law corrects the targets of the next fit, so many rounds; the best of
    them counts.

    Returns:
        The law, and seconds to the first token and seconds a token of the points.
    """
    target = points["silicon_tpot_ms"].to_numpy(float)
    wanted, best = target, None
    for _ in range(rounds + 1):
        cost = served_law(configuration.key, points.assign(silicon_tpot_ms=wanted))
        first, between = simulate_points(cost, configuration, points, how, seed)
        miss = _miss(between * 1e3, target)
        if best is None or miss < best[0]:
            best = (miss, cost, first, between)
        wanted = wanted * np.clip(target / (between * 1e3), 0.5, 2.0)
    assert best is not None
    return best[1:]


def learn_outside(
    points: pd.DataFrame, held: frozenset[Setting] = frozenset()
) -> tuple[float, Outside]:
    """The time outside the engine that explains TTFT best, with its mean logarithmic miss.

    Args:
        points: Points with the columns first_s and between_s of the simulator.
        held: Settings with which the engine sends the first `HELD` tokens at once.
    """
    scale = np.array([30e-3, 10e-6])
    first, isl = first_seen(points, held), points["isl"].to_numpy(float)
    measured = points["silicon_ttft_ms"].to_numpy(float) * 1e-3

    def residual(x: np.ndarray) -> np.ndarray:
        fixed, token = x * scale
        return np.asarray(np.log((first + fixed + token * isl) / measured))

    found = least_squares(residual, np.ones(2), bounds=(0, np.inf), loss="soft_l1", f_scale=0.1)
    fixed, token = found.x * scale
    return float(np.abs(residual(found.x)).mean()), Outside(float(fixed), float(token))


def harnesses(client: str, engine: str) -> list[Harness]:
    """What is tried for a client and an engine: all that is not published."""
    published = client == INFERENCEMAX
    lengths = (0.8,) if published else LENGTHS
    engines = ENGINES[1:2] if published and engine == "vllm" else ENGINES
    return [Harness(kind, tokens, short) for kind, tokens in engines for short in lengths]


@dataclass(frozen=True)
class Trial:
    """One configuration under one harness: its miss of TPOT, and points as `learn_outside` wants.

    Attributes:
        how: The harness.
        miss: Mean absolute logarithm of simulated over measured TPOT.
        points: Every second point, with the columns first_s and between_s.
    """

    how: Harness
    miss: float
    points: pd.DataFrame


def trials(
    configuration: Configuration, seed: int, advance: Callable[[int], None]
) -> tuple[Trial, ...]:
    """Simulate a configuration under every harness of its group; counts the harnesses."""
    out = []
    # Every second point tells as much of a client as all of them, in half the time.
    points = configuration.points.iloc[::2]
    for how in harnesses(*configuration.group):
        _, first, between = law(configuration, points, how, seed, ROUNDS_TO_LEARN)
        miss = _miss(between * 1e3, points["silicon_tpot_ms"].to_numpy(float))
        out.append(Trial(how, miss, points.assign(first_s=first, between_s=between)))
        advance(1)
    return tuple(out)


def learn(teach: Mapping[Configuration, Sequence[Trial]]) -> Learned:
    """Choose the harness, and the time outside the engine, by the configurations of one group.

    Args:
        teach: `trials` of the configurations that teach.
    """
    configurations = list(teach)
    best: tuple[float, Harness, pd.DataFrame] | None = None
    for same in zip(*teach.values(), strict=True):
        table = pd.concat([trial.points for trial in same])
        miss = float(np.mean([trial.miss for trial in same])) + learn_outside(table)[0]
        if best is None or miss < best[0]:
            best = (miss, same[0].how, table)
    assert best is not None
    _, how, table = best
    held = _learn_held(table) if configurations[0].key[3] == "trtllm" else frozenset()
    names = tuple(configuration.name for configuration in configurations)
    pairs = frozenset(configuration.pair for configuration in configurations)
    return Learned(how, learn_outside(table, held)[1], held, names, pairs)


def first_seen(points: pd.DataFrame, held: frozenset[Setting]) -> np.ndarray:
    """Seconds until the engine sends its first token, of points with first_s and between_s."""
    late = np.array([setting in held for setting in _settings(points)])
    return (points["first_s"] + late * (HELD - 1) * points["between_s"]).to_numpy(float)


def _settings(points: pd.DataFrame) -> list[Setting]:
    columns = points[["isl", "osl", "degree"]].astype(int)
    return list(columns.itertuples(index=False, name=None))


def _learn_held(table: pd.DataFrame) -> frozenset[Setting]:
    held: frozenset[Setting] = frozenset()
    for setting in sorted(set(_settings(table))):
        wider = held | {setting}
        if learn_outside(table, wider)[0] < HELD_IF * learn_outside(table, held)[0]:
            held = wider
    return held


def score(configuration: Configuration, learned: Learned, seed: int) -> pd.DataFrame:
    """Simulate every point with a law that was fitted to the TPOT of every other point.

    The points are parted in two, in turn; the law of one half is scored on the other.

    Returns:
        The points with the columns tpot_ms, ttft_ms (TTFT of this configuration never used) and
        ttft_own_ms (time outside the engine learned on the other half of its points).
    """
    points = configuration.points
    parts = []
    for half in (0, 1):
        mine, other = points.iloc[half::2], points.iloc[1 - half :: 2]
        cost, first, between = law(configuration, other, learned.harness, seed, ROUNDS)
        own = learn_outside(other.assign(first_s=first, between_s=between), learned.held)[1]
        first, between = simulate_points(cost, configuration, mine, learned.harness, seed)
        mine = mine.assign(first_s=first, between_s=between)
        seen = first_seen(mine, learned.held)
        parts.append(
            mine.assign(
                tpot_ms=between * 1e3,
                ttft_ms=(seen + learned.outside.of(mine)) * 1e3,
                ttft_own_ms=(seen + own.of(mine)) * 1e3,
            )
        )
    return pd.concat(parts).sort_index()


@cache
def unseen_efficiencies(model: str, gpu: str) -> Efficiencies:
    """The roofline's efficiencies, learned on the shipped fits of all other (model, GPU)."""
    pairs = [(cost, row["dataset"]) for cost, row in read_calibration()]
    return efficiencies([pair for pair in pairs if (pair[0].model, pair[0].gpu) != (model, gpu)])


def score_unseen(configuration: Configuration, learned: Learned, seed: int) -> pd.DataFrame:
    """Simulate every point with the roofline, as if this model had never run on this GPU.

    Args:
        configuration: What is scored.
        learned: What `other_pairs` of its group taught.
        seed: Of the lengths of the calls.

    Returns:
        The points with the columns tpot_ms and ttft_ms.

    Raises:
        ValueError: A configuration of the same model and GPU was among those that taught.
    """
    model, gpu, degree, engine, precision = configuration.key
    if configuration.pair in learned.pairs:
        raise ValueError(f"{configuration.name}: taught by {model} on {gpu}, which is scored")
    use = unseen_efficiencies(model, gpu)
    cost = roofline(model, gpu, degree, engine, precision, use)
    points = configuration.points
    first, between = simulate_points(cost, configuration, points, learned.harness, seed)
    points = points.assign(first_s=first, between_s=between)
    ttft = first_seen(points, learned.held) + learned.outside.of(points)
    return points.assign(tpot_ms=between * 1e3, ttft_ms=ttft * 1e3)


def _miss(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean absolute logarithm of the ratio."""
    return float(np.abs(np.log(found / wanted)).mean())
