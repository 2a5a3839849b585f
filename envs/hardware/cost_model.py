"""How long one engine iteration takes: a short law in seconds, and its exact integer tables.

The law is affine in the context tokens at a fixed batch, which is what lets the simulator
fast-forward over many decode iterations at once. docs/simulator.md, "Step time", says how the
kernel reads the tables.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

PICOSECONDS = 10**12
"""Picoseconds in a second, the unit of the kernel's clock."""

SHARPNESS = (1, 2, 4, 8, 16)
"""Allowed values of `sharpness`. Powers of two need only products and square roots, which IEEE 754
rounds alike everywhere, where `pow` differs between machines in the last digit."""

FloatArray = NDArray[np.float64]
_warned: set[str] = set()


class OutsideFitWarning(UserWarning):
    """A cost model is used outside the range of the measurements that it was fitted to."""


@dataclass(frozen=True, eq=False)
class StepTables:
    """Iteration times in int64 picoseconds, as the compiled kernel reads them."""

    decode_ps: NDArray[np.int64]  # (max_num_seqs + 1,) [ps]
    """Decode-only step of b sequences, without its context part."""
    prefill_ps: NDArray[np.int64]  # (max_batched_tokens + 1,) [ps]
    """Step with prefill, by the tokens in it (prefill + decode)."""
    sequence_ps: NDArray[np.int64]  # (max_num_seqs + 1,) [ps]
    """Addition by decoding sequences in a step with prefill; may be negative, 0 at 0 sequences."""
    context_ps: int
    """Per context token of the decoding sequences, decode-only step."""
    mixed_context_ps: int
    """Per context token of the decoding sequences, step with prefill."""
    attention_ps: int
    """Per unit of prefill attention work (a token attending to a token)."""
    prefill_tail_ps: int
    """Per token beyond the last index of `prefill_ps`."""


def smooth_max(a: ArrayLike, b: ArrayLike, sharpness: int) -> FloatArray:
    """Give `(a^q + b^q)^(1/q)` elementwise: the sum at q = 1, nearing the maximum as q grows.

    Args:
        a: Non-negative numbers, any shape.
        b: Non-negative numbers, a shape that broadcasts with `a`.
        sharpness: q, one of `SHARPNESS`.
    """
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    peak = np.maximum(left, right)
    scale = np.where(peak > 0.0, peak, 1.0)
    left, right = left / scale, right / scale
    doublings = sharpness.bit_length() - 1
    for _ in range(doublings):
        left, right = left * left, right * right
    total = left + right
    for _ in range(doublings):
        total = np.sqrt(total)
    return np.asarray(total * scale)


@dataclass(frozen=True)
class CostModel:
    """Time of one engine step, in seconds, from a dozen coefficients.

    A step with n new tokens takes::

        P(n) = sm_q(w + x*E(n), k*n) + g*n + h*max(0, n - hinge) + tau     with prefill, b = 0
        D(b) = sm_q(w + x*E(b), k*b) + (g + d)*b + tau + tau_d             decode only, b sequences
        decode step = D(b) + c*C
        mixed step  = P(b + n) + D(b) - P(b) + d_m*b + c_m*C + s*S           b = 0: P(n) + s*S

    with C the summed context of the decoding sequences and S the prefill attention work in
    token pairs, `m*h + m*(m+1)/2` for a chunk of m tokens over h earlier ones. `sm_q` is
    `smooth_max`; `E(n) = 1 - (1 - k_top/E)^n` is the share of experts that n tokens hit, 0 for a
    dense model. `decode_table` and `prefill_table`, where given, replace D by linear interpolation
    of measurements plus tau_d, and P by the same plus tau. With `mixed_by_tokens` a mixed step
    takes `P(b + n) + d_m*b + c_m*C + s*S`: each decoding sequence counts as one more token.

    Raises:
        ValueError: on a negative or non-finite coefficient, an unknown sharpness, an expert count
            without experts per token, or a table that is not increasing or has a bad time.
    """

    name: str
    """Key shown to people, such as `Llama-3.1-8B/H100-SXM-80GB/tp1/vllm`."""
    model: str
    """Name of the model in the catalogue."""
    gpu: str
    """Name of the GPU in the catalogue."""
    tensor_parallel: int = 1
    """GPUs that share the model."""
    engine: str = "vllm"
    """Serving engine that was measured."""
    precision: str = "bf16"
    """Number format of the weights."""
    tier: str = "calibrated"
    """`calibrated` (fitted to this pair), `roofline` (predicted for it) or `preset` (published)."""

    weights_s: float = 0.0
    """w: reading the weights that every step reads [s]."""
    experts_s: float = 0.0
    """x: reading all expert weights [s]; 0 for a dense model."""
    token_s: float = 0.0
    """k: arithmetic per new token, hidden behind w while small [s/token]."""
    linear_s: float = 0.0
    """g: time per new token that nothing hides [s/token]."""
    context_s: float = 0.0
    """c: reading a context token, decode-only step [s/token]."""
    mixed_context_s: float | None = None
    """c_m: the same in a step with prefill [s/token]; None = as `context_s`."""
    attention_s: float = 0.0
    """s: per pair of tokens in prefill attention [s]."""
    overhead_s: float = 0.0
    """tau: fixed time of a step [s]."""
    decode_sequence_s: float = 0.0
    """d: addition per decoding sequence (sampling, output handling) [s]; may be negative."""
    mixed_sequence_s: float = 0.0
    """d_m: addition per decoding sequence in a step with prefill [s]."""
    decode_overhead_s: float = 0.0
    """tau_d: addition to a decode-only step [s]; may be negative."""
    sharpness: int = 1
    """q of `smooth_max`, one of `SHARPNESS`."""
    hinge_tokens: int = 0
    """Prefill tokens above which each costs `hinge_s` more (2,048 for vLLM of 2023)."""
    hinge_s: float = 0.0
    """h: addition per token above the hinge [s/token]."""
    experts: int = 0
    """Experts a layer; 0 for a dense model."""
    experts_per_token: int = 0
    """Experts a token is sent to."""
    decode_table: tuple[tuple[int, float], ...] = ()
    """Measured (sequences, seconds) of decode steps, increasing; empty = use the law."""
    prefill_table: tuple[tuple[int, float], ...] = ()
    """Measured (tokens, seconds) of prefill steps, increasing; empty = use the law."""
    mixed_by_tokens: bool = False
    """Whether a step with prefill depends on its tokens alone, not on D."""

    source: str = ""
    """Where the coefficients come from."""
    licence: str = ""
    """Licence of the measurements."""
    fit_seqs: int = 0
    """Largest measured number of decoding sequences; 0 = no limit known."""
    fit_tokens: int = 0
    """Largest measured number of new tokens in a step; 0 = no limit known."""
    fit_context: int = 0
    """Largest measured context of a sequence in tokens; 0 = no limit known."""
    points: int = 0
    """Measurements fitted."""
    decode_error: float = float("nan")
    """Held-out mean relative error of decode steps."""
    prefill_error: float = float("nan")
    """Held-out mean relative error of prefill steps."""
    tpot_error: float = float("nan")
    """Held-out mean relative error of the served time per output token."""
    kv_tokens: int = 0
    """KV capacity in tokens where the source states it; 0 = compute it from the catalogue."""

    def __post_init__(self) -> None:
        """Check the coefficients once, so that the tables need no checks."""
        signed = {"decode_sequence_s": 0.0, "decode_overhead_s": 0.0}
        for field, value in vars(self).items():
            if field.endswith("_s") and value is not None:
                if not np.isfinite(value) or (value < 0 and field not in signed):
                    raise ValueError(
                        f"cost model {self.name}: {field} = {value} must be finite and >= 0"
                    )
        if self.sharpness not in SHARPNESS:
            raise ValueError(
                f"cost model {self.name}: sharpness {self.sharpness} is not one of {SHARPNESS}"
            )
        if self.experts and not 0 < self.experts_per_token <= self.experts:
            raise ValueError(
                f"cost model {self.name}: experts_per_token = {self.experts_per_token} must lie "
                f"in 1..{self.experts} (experts)"
            )
        for name, unit in (("decode_table", "sequences"), ("prefill_table", "tokens")):
            self._check_table(name, unit)

    def _check_table(self, name: str, unit: str) -> None:
        table: tuple[tuple[int, float], ...] = getattr(self, name)
        knots = [knot for knot, _ in table]
        if table and (len(knots) < 2 or knots != sorted(set(knots))):
            raise ValueError(
                f"cost model {self.name}: {name} needs two or more rows, increasing in {unit}"
            )
        for knot, seconds in table:
            if not np.isfinite(seconds) or seconds < 0:
                raise ValueError(
                    f"cost model {self.name}: {name} has {seconds} s at {knot} {unit}; times must "
                    "be finite and >= 0"
                )

    @property
    def error(self) -> float:
        """Held-out mean relative error: the largest of those known, or nan."""
        known = [e for e in (self.decode_error, self.prefill_error, self.tpot_error) if e == e]
        return max(known, default=float("nan"))

    def step_time(
        self,
        decode_seqs: ArrayLike = 0,
        context_tokens: ArrayLike = 0,
        prefill_tokens: ArrayLike = 0,
        attention_work: ArrayLike = 0,
    ) -> Any:
        """Give the time of one step in seconds, without the rounding of the tables.

        Args:
            decode_seqs: Sequences that decode one token each.
            context_tokens: Their summed context in tokens.
            prefill_tokens: New prompt tokens in the step; 0 = decode only.
            attention_work: Prefill attention work S in token pairs.

        Returns:
            A float, or an array of the shape to which the arguments broadcast.
        """
        b, context, n, work = np.broadcast_arrays(
            *(
                np.asarray(argument, np.float64)
                for argument in (decode_seqs, context_tokens, prefill_tokens, attention_work)
            )
        )
        mixed_context = self.context_s if self.mixed_context_s is None else self.mixed_context_s
        sequences = self.mixed_sequence_s * b
        if not self.mixed_by_tokens:
            sequences = np.where(b > 0, self._decode(b) - self._prefill(b) + sequences, 0.0)
        seconds = np.where(
            n > 0,
            self._prefill(b + n) + sequences + mixed_context * context + self.attention_s * work,
            self._decode(b) + self.context_s * context,
        )
        return float(seconds) if seconds.ndim == 0 else seconds

    @lru_cache(maxsize=64)  # noqa: B019 - small, immutable, and asked for at every episode
    def tables(self, max_num_seqs: int, max_batched_tokens: int) -> StepTables:
        """Round the law once to integer picoseconds, at least one each, alike on every machine.

        Args:
            max_num_seqs: Largest number of sequences in a step.
            max_batched_tokens: Largest number of new tokens in a step; a single longer prompt
                continues along the slope from here to twice as many.

        Raises:
            ValueError: if either is below 1.
        """
        if max_num_seqs < 1 or max_batched_tokens < 1:
            raise ValueError(
                f"max_num_seqs = {max_num_seqs} and max_batched_tokens = {max_batched_tokens} "
                "must be at least 1"
            )
        top = max_batched_tokens
        sequences = np.arange(max_num_seqs + 1, dtype=np.float64)
        decode = _picoseconds(self._decode(sequences))
        # A decode batch may exceed the token budget, and the law is cheap: one longer table
        # serves the difference and the tail.
        prefill = _picoseconds(self._prefill(np.arange(max(2 * top, max_num_seqs) + 1.0)))
        tail = int(prefill[2 * top] - prefill[top]) // top
        table = prefill[: top + 1].copy()
        past = np.arange(max_num_seqs + 1) - top
        read = table[np.minimum(np.arange(max_num_seqs + 1), top)] + np.maximum(past, 0) * tail
        mixed = np.rint(self.mixed_sequence_s * sequences * PICOSECONDS).astype(np.int64)
        extra = mixed if self.mixed_by_tokens else decode - read + mixed
        extra[0] = 0
        mixed_context = self.context_s if self.mixed_context_s is None else self.mixed_context_s
        for array in (decode, table, extra):
            array.setflags(write=False)
        return StepTables(
            decode_ps=decode,
            prefill_ps=table,
            sequence_ps=extra,
            context_ps=round(self.context_s * PICOSECONDS),
            mixed_context_ps=round(mixed_context * PICOSECONDS),
            attention_ps=round(self.attention_s * PICOSECONDS),
            prefill_tail_ps=max(tail, 1),
        )

    def check_range(self, max_seqs: int = 0, max_tokens: int = 0, max_context: int = 0) -> None:
        """Warn, once per model and process, of use outside the fitted range.

        Args:
            max_seqs: Largest number of decoding sequences that may occur.
            max_tokens: Largest number of new tokens in a step that may occur.
            max_context: Largest context of one sequence that may occur.
        """
        beyond = [
            f"{wanted:,} {unit} (fitted to {fitted:,})"
            for wanted, fitted, unit in (
                (max_seqs, self.fit_seqs, "sequences"),
                (max_tokens, self.fit_tokens, "tokens a step"),
                (max_context, self.fit_context, "context tokens"),
            )
            if fitted and wanted > fitted
        ]
        if beyond and self.name not in _warned:
            _warned.add(self.name)
            warnings.warn(
                f"cost model {self.name} is extrapolated: {', '.join(beyond)}",
                OutsideFitWarning,
                stacklevel=2,
            )

    def _prefill(self, tokens: FloatArray) -> FloatArray:
        if self.prefill_table:
            return _interpolate(tokens, self.prefill_table) + self.overhead_s
        over = np.maximum(tokens - self.hinge_tokens, 0.0)
        return self._law(tokens) + self.linear_s * tokens + self.hinge_s * over + self.overhead_s

    def _decode(self, seqs: FloatArray) -> FloatArray:
        if self.decode_table:
            return _interpolate(seqs, self.decode_table) + self.decode_overhead_s
        per_sequence = (self.linear_s + self.decode_sequence_s) * seqs
        return self._law(seqs) + per_sequence + (self.overhead_s + self.decode_overhead_s)

    def _law(self, tokens: FloatArray) -> FloatArray:
        read = self.weights_s + self.experts_s * self._expert_share(tokens)
        return smooth_max(read, self.token_s * tokens, self.sharpness)

    def _expert_share(self, tokens: FloatArray) -> FloatArray:
        if not self.experts:
            return np.zeros_like(tokens)
        top = int(tokens.max(initial=0.0))
        missed = np.cumprod(np.full(top + 1, 1.0 - self.experts_per_token / self.experts))
        # missed[i] is the power i + 1; index 0 is asked with no token, hence the shift.
        powers = np.concatenate([[1.0], missed])
        return np.asarray(1.0 - powers[tokens.astype(np.int64)])


def _picoseconds(seconds: FloatArray) -> NDArray[np.int64]:
    return np.maximum(np.rint(seconds * PICOSECONDS), 1.0).astype(np.int64)


def _interpolate(x: FloatArray, table: tuple[tuple[int, float], ...]) -> FloatArray:
    """Interpolate linearly and continue the end slopes, with no fused operation (np.interp)."""
    knots = np.array([knot for knot, _ in table], np.float64)
    values = np.array([seconds for _, seconds in table], np.float64)
    left = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
    slope = (values[left + 1] - values[left]) / (knots[left + 1] - knots[left])
    return np.asarray(values[left] + slope * (x - knots[left]))
