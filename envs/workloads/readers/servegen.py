"""Requests drawn from ServeGen's description of production load by client (Apache-2.0).

Source: github alibaba/ServeGen, repacked as two Parquet files a model. The trace gives for each
client and 600 s window the recorded `rate` (requests/s), the coefficient of variation `cv` of the
gaps and the fitted gap distribution: `pat` "Gamma" (p1 = shape, p2 = scale in seconds, cv =
1/sqrt(p1)), "Weibull" (p1 = shape, p2 = scale in seconds) or "Exponential". Token lengths are
quantiles by client and (six-hourly) window.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..errors import TraceError
from ..files import is_parquet, parquet_columns, parquet_fault
from ..labels import Labels
from ..quantiles import sample_quantiles
from ..table import RequestTable

WINDOW_S = 600
TRACE_COLUMNS = ("client", "t", "rate", "cv", "pat", "p1", "p2")
LEVELS = np.array([0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99])
_QUANTILES = ("q1", "q5", "q10", "q25", "q50", "q75", "q90", "q95", "q99")
MOST_REQUESTS = 50_000_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_Lengths = dict[int, tuple[Floats, Floats, Floats]]
"""By client: (w,) window starts, (w, 9) input and (w, 9) output quantiles."""


def generate(
    path: str | Path,
    *,
    lengths: str | Path | None = None,
    start_s: float = 0.0,
    duration_s: float = 3600.0,
    rate_scale: float = 1.0,
    clients: Iterable[int] | None = None,
    missing_lengths: Literal["borrow", "drop"] = "borrow",
    seed: int = 0,
) -> RequestTable:
    """Draw requests from ServeGen client windows.

    In each window a client sends rate x 600 x `rate_scale` requests (a fraction is rounded up or
    down at random), so counts follow the record. Their gaps are drawn from the window's
    distribution with its shape and stretched to fill the window, which keeps the burstiness. Input
    and output tokens are drawn independently from the client's quantiles in the last length
    window that began by then (else its first); see `quantiles.sample_quantiles`. The client
    becomes the tenant ("client-7").

    Args:
        path: The `*_trace.parquet` file.
        lengths: The quantiles; default the file beside it with `_lengths_quantiles` for `_trace`.
        start_s: Where to start in the record (0 to 14 days); arrivals count from here.
        duration_s: Length of the workload in seconds.
        rate_scale: Factor on every rate (the record can exceed 1,000 requests/s).
        clients: Numbers of the clients to use; default all.
        missing_lengths: Clients without any lengths (up to a third of the load) each "borrow" those
            of a client that has some, drawn in proportion to its load in the chosen time, or are
            left out with "drop".
        seed: Seed of everything that is drawn.

    Raises:
        TraceError: A file is absent, damaged or holds a bad value, or nothing is left to draw.
        ValueError: An argument is out of range.
    """
    path = Path(path)
    rng = np.random.default_rng(seed)
    record = read_record(
        path,
        lengths=lengths,
        start_s=start_s,
        duration_s=duration_s,
        rate_scale=rate_scale,
        clients=clients,
        missing_lengths=missing_lengths,
        rng=rng,
    )
    if record.expected > MOST_REQUESTS:
        mend = "Use a smaller rate_scale or duration_s, or fewer clients"
        text = f"about {record.expected:.3g} requests would be drawn"
        raise TraceError(text, mend=mend, path=path)
    arrival, client, prompt, output = record.draw(start_s, start_s + duration_s, rng)
    if not len(arrival):
        mend = "Choose another start_s, a longer duration_s or more clients"
        raise TraceError("no request falls in the chosen time", mend=mend, path=path)
    names, codes = np.unique(client, return_inverse=True)
    return RequestTable.from_columns(
        arrival_s=arrival,
        prompt_tokens=prompt,
        output_tokens=output,
        tenant=Labels(codes.astype(np.int32), tuple(f"client-{name}" for name in names)),
        model=path.name.removesuffix("_trace.parquet").rpartition("_")[2] or "default",
        source=f"{path.name} (ServeGen, {start_s:g} s + {duration_s:g} s, x{rate_scale:g},"
        f" seed {seed})",
    )


@dataclass(frozen=True)
class Record:
    """Client windows and lengths of a time, from which requests are drawn.

    Attributes:
        windows: One row a client and window.
        lengths: Quantiles by client.
        owners: Whose lengths each client uses.
        rate_scale: Factor on every rate.
    """

    windows: pd.DataFrame
    lengths: _Lengths
    owners: dict[int, int]
    rate_scale: float

    @property
    def expected(self) -> float:
        """Requests that all windows would give."""
        return float((self.windows["rate"] * WINDOW_S).sum() * self.rate_scale)

    def loads(self) -> pd.Series[float]:
        """Share of each client in the requests, by its number."""
        load = self.windows.groupby("client")["rate"].sum()
        return load / load.sum()

    def draw(
        self, start_s: float, stop_s: float, rng: np.random.Generator
    ) -> tuple[Floats, Ints, Ints, Ints]:
        """Draw the requests of [start_s, stop_s).

        Returns:
            Arrival in seconds from `start_s`, sorted; client; prompt and output tokens; (n,) each.
        """
        t = self.windows["t"]
        windows = self.windows[(t + WINDOW_S > start_s) & (t < stop_s)]
        arrival, client, row = _arrivals(windows, self.rate_scale, rng)
        inside = (arrival >= start_s) & (arrival < stop_s)
        arrival, client, row = arrival[inside] - start_s, client[inside], row[inside]
        if not len(arrival):
            return arrival, client, row, row
        prompt, output = _tokens(windows, self.lengths, self.owners, row, rng)
        order = np.argsort(arrival, kind="stable")
        return arrival[order], client[order], prompt[order], output[order]


def read_record(
    path: Path,
    *,
    lengths: str | Path | None,
    start_s: float,
    duration_s: float,
    rate_scale: float,
    clients: Iterable[int] | None,
    missing_lengths: Literal["borrow", "drop"],
    rng: np.random.Generator,
) -> Record:
    """Read what requests are drawn from; arguments and errors as `generate`.

    Args:
        path: The `*_trace.parquet` file.
        lengths: The quantiles.
        start_s: Where to start in the record.
        duration_s: How long.
        rate_scale: Factor on every rate.
        clients: Numbers of the clients to use.
        missing_lengths: What to do with clients without lengths.
        rng: Draws whose lengths are borrowed.
    """
    if not (np.isfinite(start_s) and start_s >= 0):
        raise ValueError(f"start_s is {start_s}; it must be 0 or more")
    for name, value in {"duration_s": duration_s, "rate_scale": rate_scale}.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; it must be positive and finite")
    if missing_lengths not in ("borrow", "drop"):
        raise ValueError(f"missing_lengths is {missing_lengths!r}; choose 'borrow' or 'drop'")
    windows = _windows(path, start_s, start_s + duration_s, clients)
    quantiles_path = Path(lengths) if lengths is not None else lengths_beside(path)
    quantiles = _lengths(quantiles_path)
    owners = _owners(windows, quantiles, missing_lengths, rng)
    windows = windows[windows["client"].isin(list(owners))].reset_index(drop=True)
    return Record(windows, quantiles, owners, rate_scale)


def lengths_beside(path: Path) -> Path:
    """The file of the quantiles that belongs to a `*_trace.parquet`.

    Raises:
        TraceError: The name has another form.
    """
    if not path.name.endswith("_trace.parquet"):
        mend = "Give lengths= (Python) with the *_lengths_quantiles.parquet file"
        raise TraceError("the file of the lengths is not told by the name", mend=mend, path=path)
    return path.with_name(path.name.replace("_trace.parquet", "_lengths_quantiles.parquet"))


def _parquet(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    if not path.is_file():
        raise TraceError("the file does not exist", mend="Check the name", path=path)
    if not is_parquet(path):
        mend = "Name the Parquet file of ServeGen"
        raise TraceError("is not Parquet", mend=mend, path=path)
    return parquet_columns(path, names)


def _windows(path: Path, start: float, stop: float, clients: Iterable[int] | None) -> pd.DataFrame:
    data = _parquet(path, TRACE_COLUMNS)
    fault = parquet_fault(path)
    if not len(data["t"]):
        raise TraceError("there are no windows", mend="Fetch the file again", path=path)
    for name in ("client", "t", "rate", "p1"):
        values = data[name]
        kind = getattr(getattr(values, "dtype", None), "kind", "O")
        if kind not in "iuf":
            raise fault(0, name, "is not a number", "Fetch the file again")
        # Narrow integers would overflow in the sums below.
        data[name] = values = np.asarray(values, np.float64)
        low = values >= 0 if name in ("client", "t") else values > 0
        good = np.isfinite(values) & low & (values < 1e9)
        if not good.all():
            row = int(np.argmin(good))
            raise fault(row, name, f"the value {values[row]:g} is out of range", "Drop the row")
    whole = data["client"] == np.floor(data["client"])
    if not whole.all():
        raise fault(int(np.argmin(whole)), "client", "is not a whole number", "Correct the row")
    data["client"] = data["client"].astype(np.int64)
    pattern = np.asarray(data["pat"], dtype=object)
    known = np.isin(pattern, ["Gamma", "Weibull", "Exponential"])
    if not known.all():
        row = int(np.argmin(known))
        mend = "Known are Gamma, Weibull and Exponential"
        raise fault(row, "pat", f"the process {pattern[row]!r} is unknown", mend)
    frame = pd.DataFrame({**{name: data[name] for name in TRACE_COLUMNS}, "pat": pattern})
    if clients is not None:
        wanted = set(clients)
        absent = wanted - set(frame["client"])
        if absent:
            mend = f"It has {sorted(set(frame['client']))}"
            raise TraceError(f"has no client {sorted(absent)}", mend=mend, path=path)
        frame = frame[frame["client"].isin(list(wanted))]
    frame = frame[(frame["t"] + WINDOW_S > start) & (frame["t"] < stop)]
    if frame.empty:
        mend = f"The record covers 0 .. {int(np.max(data['t'])) + WINDOW_S} s"
        raise TraceError("no client sends in the chosen time", mend=mend, path=path)
    return frame.reset_index(drop=True)


def _lengths(path: Path) -> _Lengths:
    data = _parquet(path, ("client", "t", "field", *_QUANTILES))
    fault = parquet_fault(path)
    try:
        table = np.column_stack([np.asarray(data[name], np.float64) for name in _QUANTILES])
        keys = np.column_stack([np.asarray(data[name], np.float64) for name in ("client", "t")])
    except (TypeError, ValueError):
        raise TraceError("holds text for numbers", mend="Fetch it again", path=path) from None
    good = np.isfinite(table).all(1) & (np.diff(table, axis=1) >= 0).all(1) & (table[:, 0] >= 0)
    good &= np.isfinite(keys).all(1) & (np.abs(keys) < 1e9).all(1) & (table[:, -1] < 2**31)
    if not good.all():
        row, mend = int(np.argmin(good)), "Drop the row"
        raise fault(row, "q1 .. q99", "the quantiles do not rise from 0 upwards", mend)
    frame = pd.DataFrame({"client": keys[:, 0].astype(int), "t": keys[:, 1]})
    frame["row"] = np.arange(len(keys))
    field = np.asarray(data["field"], dtype=object)
    sides = [frame[field == name] for name in ("input_tokens", "output_tokens")]
    both = sides[0].merge(sides[1], on=["client", "t"], suffixes=("_in", "_out"))
    both = both.sort_values(["client", "t"], kind="stable")
    return {
        int(client): (
            group["t"].to_numpy(np.float64),
            table[group["row_in"].to_numpy()],
            table[group["row_out"].to_numpy()],
        )
        for client, group in both.groupby("client")
    }


def _owners(
    windows: pd.DataFrame, quantiles: _Lengths, missing: str, rng: np.random.Generator
) -> dict[int, int]:
    """Whose lengths each client uses."""
    load = windows.groupby("client")["rate"].sum()
    own = [int(client) for client in load.index if client in quantiles]
    owners = {client: client for client in own}
    if missing == "borrow":
        lenders = own or sorted(quantiles)
        weights = load.reindex(lenders).fillna(1.0).to_numpy() if lenders else np.zeros(0)
        for client in load.index:
            if client not in quantiles and lenders:
                owners[int(client)] = int(rng.choice(lenders, p=weights / weights.sum()))
    return owners


def _arrivals(
    windows: pd.DataFrame, scale: float, rng: np.random.Generator
) -> tuple[Floats, Ints, Ints]:
    """Arrival, client and row of `windows` of every request, unsorted."""
    times: list[Floats] = []
    counts = np.zeros(len(windows), np.int64)
    exact = windows["rate"].to_numpy() * WINDOW_S * scale
    patterns, starts = windows["pat"].to_numpy(), windows["t"].to_numpy()
    for i, shape in enumerate(windows["p1"].to_numpy()):
        n = int(exact[i]) + int(rng.random() < exact[i] % 1)
        counts[i] = n
        if n == 0:
            continue
        # One gap more than requests, so that the last one need not end the window.
        if patterns[i] == "Gamma":
            gaps = rng.gamma(shape, 1.0, n + 1)
        elif patterns[i] == "Weibull":
            gaps = rng.weibull(shape, n + 1)
        else:
            gaps = rng.exponential(1.0, n + 1)
        total = gaps.sum()
        if not (total > 0 and np.isfinite(total)):
            gaps, total = np.ones(n + 1), n + 1.0
        times.append(starts[i] + WINDOW_S * np.cumsum(gaps)[:-1] / total)
    row = np.repeat(np.arange(len(windows)), counts)
    arrival = np.concatenate(times) if times else np.zeros(0)
    return arrival, windows["client"].to_numpy(np.int64)[row], row


def _tokens(
    windows: pd.DataFrame,
    quantiles: _Lengths,
    owners: dict[int, int],
    row: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    tables: list[list[Floats]] = [[], []]
    for client, t in zip(windows["client"], windows["t"], strict=True):
        starts, inputs, outputs = quantiles[owners[int(client)]]
        at = max(0, int(np.searchsorted(starts, t, side="right")) - 1)
        tables[0].append(inputs[at])
        tables[1].append(outputs[at])
    prompt, output = (
        sample_quantiles(LEVELS, np.array(table), row, rng.random(len(row))) for table in tables
    )
    return prompt, output
