"""Demand over time as controllers see it: what arrived, by model and region, in equal bins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from envs.workloads import RequestTable

Floats = npt.NDArray[np.float64]
BATCH = "NIW"


@dataclass(frozen=True, eq=False)
class Demand:
    """Series of equal bins over one time; M models, R regions, B bins.

    What controllers are shown of an episode ends with the last whole bin (`until`). Prompt tokens
    are known when a request arrives, output tokens are not: `tokens` are prompt tokens times a
    ratio that comes from earlier times.

    Attributes:
        prompt: (M, R, B) prompt tokens/s of interactive requests (IW-F, IW-N).
        batch: (M, R, B) prompt tokens/s of NIW.
        largest: (M, R, B) largest prompt of NIW that arrived in a bin.
        bin_s: Width of a bin, seconds.
        ratio: (M,) prompt and output tokens over prompt tokens of interactive requests.
        batch_ratio: (M,) the same of NIW.
        start_s: When the first bin begins, in seconds of the week that recurs.
    """

    prompt: Floats
    batch: Floats
    largest: Floats
    bin_s: float
    ratio: Floats
    batch_ratio: Floats
    start_s: float = 0.0

    @property
    def bins(self) -> int:
        """B."""
        return self.prompt.shape[-1]

    @cached_property
    def tokens(self) -> Floats:
        """(M, R, B) prompt and output tokens/s of interactive requests, by the ratio."""
        return self.prompt * self.ratio[:, None, None]

    @cached_property
    def batch_tokens(self) -> Floats:
        """(M, R, B) the same of NIW."""
        return self.batch * self.batch_ratio[:, None, None]

    def until(self, time_s: float) -> Demand:
        """The whole bins before a time since the first bin began; views that end there."""
        stop = int(time_s / self.bin_s + 1e-9)
        return replace(
            self,
            prompt=self.prompt[..., :stop],
            batch=self.batch[..., :stop],
            largest=self.largest[..., :stop],
        )

    def followed_by(self, later: Demand) -> Demand:
        """This and what follows it, with the ratios of this one.

        Raises:
            ValueError: The bins or shapes differ.
        """
        if later.bin_s != self.bin_s or later.prompt.shape[:2] != self.prompt.shape[:2]:
            raise ValueError("demands of other bins, models or regions can't be joined")
        return replace(
            self,
            prompt=np.concatenate([self.prompt, later.prompt], axis=-1),
            batch=np.concatenate([self.batch, later.batch], axis=-1),
            largest=np.concatenate([self.largest, later.largest], axis=-1),
        )

    def with_ratios_of(self, earlier: Demand) -> Demand:
        """The same with ratios that were known before."""
        return replace(self, ratio=earlier.ratio, batch_ratio=earlier.batch_ratio)


def demand_of(
    parts: RequestTable | Iterable[RequestTable],
    models: Sequence[str],
    regions: Sequence[str],
    duration_s: float,
    bin_s: float,
    start_s: float = 0.0,
) -> Demand:
    """Count what arrives in a time.

    Args:
        parts: Requests, or their parts in order of time.
        models: Names of the models; requests of others do not count.
        regions: Names of the regions.
        duration_s: Length of the time; whole bins of it are kept.
        bin_s: Width of a bin.
        start_s: When it begins, in seconds of the week that recurs.

    Raises:
        ValueError: There is no whole bin.
    """
    bins = int(duration_s / bin_s + 1e-9)
    if bins < 1:
        raise ValueError(f"{duration_s:g} s hold no whole bin of {bin_s:g} s")
    shape = (len(models), len(regions), 2, bins)
    prompt, output = np.zeros(shape), np.zeros(shape)
    largest = np.zeros((len(models), len(regions), bins))
    tables: Iterable[RequestTable] = [parts] if isinstance(parts, RequestTable) else parts
    for part in tables:
        _add(part, models, regions, bin_s, prompt, output, largest)
    sums, answers = prompt.sum(axis=(1, 3)), output.sum(axis=(1, 3))
    ratio = 1.0 + answers / np.maximum(sums, 1.0)
    return Demand(
        prompt[:, :, 0] / bin_s,
        prompt[:, :, 1] / bin_s,
        largest,
        bin_s,
        ratio[:, 0],
        ratio[:, 1],
        start_s,
    )


def _add(
    part: RequestTable,
    models: Sequence[str],
    regions: Sequence[str],
    bin_s: float,
    prompt: Floats,
    output: Floats,
    largest: Floats,
) -> None:
    """Add what a part holds."""
    bins = prompt.shape[-1]
    model = _codes(part.model.names, models)[part.model.codes]
    region = _codes(part.region.names, regions)[part.region.codes]
    if len(regions) == 1:
        region = np.zeros(len(part), np.int64)
    if len(models) == 1:
        model = np.zeros(len(part), np.int64)
    batch = (part.tier.codes == part.tier.names.index(BATCH)).astype(np.int64)
    time = (part.arrival_s / bin_s).astype(np.int64)
    kept = (model >= 0) & (region >= 0) & (time < bins)
    place = (((model * len(regions) + region) * 2 + batch) * bins + time)[kept]
    for sums, tokens in ((prompt, part.prompt_tokens), (output, part.output_tokens)):
        counts = np.bincount(place, tokens[kept].astype(np.float64), sums.size)
        sums += counts.reshape(sums.shape)
    late = kept & (batch == 1)
    at = ((model * len(regions) + region) * bins + time)[late]
    np.maximum.at(largest.reshape(-1), at, part.prompt_tokens[late])


def _codes(names: Sequence[str], known: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.array([known.index(n) if n in known else -1 for n in names], np.int64)
