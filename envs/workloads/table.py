"""The request table: one row a request, the only form of a workload in memory and on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from .columns import COLUMNS, REQUIRED, TIERS, Fault, check
from .convert import frozen, shape, to_column
from .draws import lognormal
from .errors import TraceError
from .labels import Labels

PS_PER_SECOND = 10**12

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class RequestTable:
    """Requests sorted by arrival; columns are read-only arrays of length n.

    Only `arrival_s`, `prompt_tokens` and `output_tokens` are stored always. A column that was not
    given takes its default and costs memory only once it is asked for, so ten million requests
    take 240 MB. Build one with `from_columns`, `from_frame`, `read` or `read_trace`.

    Attributes:
        arrival_s: float64, seconds from the start of the trace, sorted, 0 .. 9e6.
        prompt_tokens: int64, all input tokens, 1 .. 2^31-1.
        output_tokens: int64, tokens generated, 1 .. 2^31-1. A policy never sees it.
        request_id: int64, unique, 0 or more; default 0 .. n-1.
        region: Labels; default "default" (so are model, tenant and application).
        model: Labels, the model asked for.
        tier: Labels over exactly ("IW-F", "IW-N", "NIW"), codes 0, 1, 2; default "IW-F".
        tenant: Labels, who sends the request.
        application: Labels, what it is for.
        interaction: int64, the interaction it belongs to; default request_id (one call each).
        call_index: int64, 0-based place in the interaction; default 0.
        calls_in_interaction: int64, default 1.
        system_tokens: int64, leading prompt tokens of the system prompt; default 0.
        deadline_s: float64, the time to finish by on the clock of `arrival_s`; default inf (none).
        priority: int64, larger is more urgent; default 0.
        predicted_output_tokens: int64, what a policy sees of the length; default -1 (none).
        prefix_id: int64, name of the prefix shared with other requests; default -1 (none).
        prefix_tokens: int64, leading prompt tokens that belong to that prefix; default 0.
        source: Where the table came from, for people; not part of equality.
    """

    arrival_s: Floats
    prompt_tokens: Ints
    output_tokens: Ints
    request_id: Ints
    region: Labels
    model: Labels
    tier: Labels
    tenant: Labels
    application: Labels
    interaction: Ints
    call_index: Ints
    calls_in_interaction: Ints
    system_tokens: Ints
    deadline_s: Floats
    priority: Ints
    predicted_output_tokens: Ints
    prefix_id: Ints
    prefix_tokens: Ints

    def __init__(self, columns: dict[str, Any], source: str = "") -> None:
        """Wrap checked columns; users call `from_columns` instead."""
        self._columns = columns
        self._defaults: dict[str, Any] = {}
        self.source = source

    @classmethod
    def from_columns(cls, *, source: str = "", **columns: Any) -> RequestTable:
        """Build a table from arrays, lists, or single values that hold for all rows.

        Args:
            source: Where the data came from; stands in error messages.
            **columns: Values by column name. Numeric columns take whole numbers (seconds for
                times), text columns take strings, a pandas Categorical or Labels.

        Raises:
            TraceError: A column is unknown, missing, of another length, or holds a bad value.
        """
        return cls.from_mapping(columns, source)

    @classmethod
    def from_mapping(
        cls, columns: Mapping[str, Any], source: str = "", fault: Fault | None = None
    ) -> RequestTable:
        """As `from_columns`, with the columns in a mapping.

        Args:
            columns: Values by column name.
            source: Where the data came from.
            fault: Builds the errors (readers name the line of their file here).

        Raises:
            TraceError: As `from_columns`.
        """
        fault = fault or _memory_fault(source or None)
        for name in columns:
            if name not in COLUMNS:
                raise fault(None, name, "is not a column", f"Columns are: {', '.join(COLUMNS)}")
        for name in REQUIRED:
            if name not in columns:
                raise fault(None, name, "the column is missing", f"Give {', '.join(REQUIRED)}")
        n = math.prod(shape(columns["arrival_s"]))
        if n == 0:
            raise fault(None, "arrival_s", "there are no requests", "Give at least one")
        built = {name: to_column(name, values, n, fault) for name, values in columns.items()}
        check({k: v for k, v in built.items() if not isinstance(v, Labels)}, fault)
        return cls(built, source)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, source: str = "") -> RequestTable:
        """Build a table from a DataFrame that has these columns; the index is ignored.

        Raises:
            TraceError: As `from_columns`.
        """
        return cls.from_mapping({str(name): frame[name] for name in frame.columns}, source)

    @classmethod
    def read(cls, path: str | Path) -> RequestTable:
        """Read a table written by `write`: Parquet, CSV or gzipped CSV, told by content.

        Raises:
            TraceError: The file is absent, damaged, or breaks a rule of a column.
        """
        from .storage import read_table

        return read_table(Path(path))

    def write(self, path: str | Path) -> Path:
        """Write to `.parquet`, `.csv` or `.csv.gz`; columns at their default are left out.

        The file appears whole or not at all, and reading it back gives an equal table.

        Raises:
            TraceError: The name ends in none of these, or the folder does not exist.
        """
        from .storage import write_table

        return write_table(self, Path(path))

    def to_frame(self, all_columns: bool = True) -> pd.DataFrame:
        """A DataFrame of all columns, or only of those that were given."""
        names = COLUMNS if all_columns else self.given
        data = {name: getattr(self, name) for name in names}
        return pd.DataFrame(
            {k: v.to_pandas() if isinstance(v, Labels) else v for k, v in data.items()}
        )

    def replace(self, **columns: Any) -> RequestTable:
        """The same requests with some columns changed; the others are shared, not copied.

        Raises:
            TraceError: As `from_columns`.
        """
        return self.from_mapping({**self._columns, **columns}, self.source)

    def followed_by(self, other: RequestTable) -> RequestTable:
        """These requests and those of another table, which come no earlier than the last here.

        Columns that only one of them was given take their defaults in the other; request ids are
        numbered anew.

        Raises:
            TraceError: The other table begins before this one ends.
        """
        if other.arrival_s[0] < self.arrival_s[-1]:
            problem = f"the value {other.arrival_s[0]} is earlier than the row before it"
            fault = _memory_fault(self.source or None)
            raise fault(len(self), "arrival_s", problem, "Sort the trace by arrival")
        joined: dict[str, Any] = {}
        for name in (set(self.given) | set(other.given)) - {"request_id"}:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Labels):
                joined[name] = mine.followed_by(theirs)
            else:
                joined[name] = frozen(np.concatenate([mine, theirs]))
        # The rows of both have been checked.
        return RequestTable(joined, self.source)

    def with_predictions(
        self, sigma: float = 0.5, seed: int = 0, *, spread: float | None = None
    ) -> RequestTable:
        """Predict the output lengths: truth times lognormal(0, sigma), rounded, at least 1.

        Published predictors have sigma 0.3 (translation) to 0.8 (open-ended text); 0 gives the
        truth. The noise model is this project's fit to the errors of such predictors.

        Args:
            sigma: Log-standard deviation of the error.
            seed: Seed of the errors.
            spread: Instead of that, an error uniform between -spread and +spread of the truth
                (VTC, OSDI 2024, has 0.5).

        Raises:
            ValueError: `sigma` is negative or not finite, or `spread` not from 0 to 1.
        """
        if not (np.isfinite(sigma) and sigma >= 0):
            raise ValueError(f"sigma is {sigma}; give a finite number, 0 or more")
        if spread is not None and not 0 <= spread <= 1:
            raise ValueError(f"spread is {spread}; give a share of the truth, from 0 to 1")
        predicted = self.output_tokens
        rng = np.random.default_rng(seed)
        if sigma > 0 or spread is not None:
            if spread is None:
                noise = lognormal(rng, 0.0, sigma, len(self))
            else:
                noise = rng.uniform(1.0 - spread, 1.0 + spread, len(self))
            limit = COLUMNS["predicted_output_tokens"].high
            noise *= predicted
            np.rint(noise, out=noise)
            np.maximum(noise, 1, out=noise)
            np.minimum(noise, limit, out=noise)
            predicted = noise.astype(np.int64)
        # Within the limits of the column, and the other columns have been checked.
        columns = self._columns | {"predicted_output_tokens": frozen(predicted)}
        return RequestTable(columns, self.source)

    def part(self, start_s: float, stop_s: float, rate_scale: float = 1.0) -> RequestTable:
        """The requests that arrive in [start_s, stop_s), counted from `start_s`, at another rate.

        Deadlines move with the arrivals: the time that a request may take stays as it is, however
        fast the requests arrive.

        Args:
            start_s: First moment, in seconds of this table.
            stop_s: First moment that is left out; infinite takes all that follow.
            rate_scale: Factor on the rate: 2 lets the requests arrive in half of the time.

        Raises:
            ValueError: No request arrives then, or an argument is out of range.
        """
        if not (np.isfinite(start_s) and start_s >= 0):
            raise ValueError(f"start_s is {start_s}; it must be 0 or more")
        if not (np.isfinite(rate_scale) and rate_scale > 0):
            raise ValueError(f"rate_scale is {rate_scale}; it must be positive and finite")
        first, stop = np.searchsorted(self.arrival_s, [start_s, stop_s])
        if first >= stop:
            raise ValueError(
                f"no request arrives between {start_s:g} s and {stop_s:g} s; the last one arrives "
                f"at {self.arrival_s[-1]:g} s"
            )
        chosen = self[first:stop]
        if start_s == 0 and rate_scale == 1:
            return chosen
        moved = {"arrival_s": (chosen.arrival_s - start_s) / rate_scale}
        if "deadline_s" in self.given:
            moved["deadline_s"] = moved["arrival_s"] + (chosen.deadline_s - chosen.arrival_s)
        return chosen.replace(**moved)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the columns that are stored, in the order of the schema."""
        return tuple(name for name in COLUMNS if name in self._columns)

    @property
    def arrival_ps(self) -> Ints:
        """Arrival in whole picoseconds, int64 (rounded to nearest)."""
        return np.rint(self.arrival_s * PS_PER_SECOND).astype(np.int64)

    def __len__(self) -> int:
        """Number of requests."""
        return len(self._columns["arrival_s"])

    def __getattr__(self, name: str) -> Any:
        """A column by its name."""
        if name not in COLUMNS:
            raise AttributeError(f"RequestTable has no attribute or column {name!r}")
        columns = self.__dict__.get("_columns", {})
        if name in columns:
            return columns[name]
        if name not in self._defaults:
            self._defaults[name] = self._default(name)
        return self._defaults[name]

    def _default(self, name: str) -> Any:
        n, rule = len(self), COLUMNS[name]
        if name == "request_id":
            return frozen(np.arange(n, dtype=np.int64))
        if name == "interaction":
            return self.request_id
        if rule.kind == "label":
            return Labels.constant(str(rule.default), n, TIERS if name == "tier" else ())
        dtype = np.float64 if rule.kind == "time" else np.int64
        return frozen(np.full(n, rule.default, dtype))

    def __getitem__(self, rows: slice) -> RequestTable:
        """The requests of a slice with a positive step; arrival times and ids stay as they are.

        Raises:
            TypeError: The index is not a slice.
            ValueError: The slice is empty or runs backwards.
        """
        if not isinstance(rows, slice):
            raise TypeError("index a RequestTable with a slice, or a column with anything else")
        start, stop, step = rows.indices(len(self))
        if step < 1 or start >= stop:
            raise ValueError(f"the slice {start}:{stop}:{step} of {len(self)} requests is empty")
        chosen = {name: values[rows] for name, values in self._columns.items()}
        if "request_id" not in chosen:
            chosen["request_id"] = frozen(np.arange(start, stop, step, dtype=np.int64))
        return RequestTable(chosen, self.source)

    def __eq__(self, other: object) -> bool:
        """Whether all columns hold the same values."""
        if not isinstance(other, RequestTable):
            return NotImplemented
        if len(self) != len(other):
            return False
        given = set(self.given) | set(other.given)
        return all(_same(getattr(self, name), getattr(other, name)) for name in given)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the stored columns only."""
        return _restore, (self._columns, self.source)

    def __repr__(self) -> str:
        """Short form."""
        span = self.arrival_s[-1] - self.arrival_s[0]
        return f"RequestTable({len(self)} requests over {span:.1f} s, source={self.source!r})"


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) if isinstance(a, Labels) else bool(np.array_equal(a, b))


def _restore(columns: dict[str, Any], source: str) -> RequestTable:
    for values in columns.values():
        frozen(values.codes if isinstance(values, Labels) else values)
    return RequestTable(columns, source)


def _memory_fault(source: str | None) -> Fault:
    def fault(row: int | None, column: str, problem: str, mend: str) -> TraceError:
        at = f"row {row} (counted from 0): " if row is not None else ""
        return TraceError(at + problem, mend=mend, path=source, column=column)

    return fault
