"""The folder of a comparison: one file per finished task, so that any run can be continued.

A task is (scenario, seed, policy). Its file in `requests/` holds the outcome of every request, and
in its metadata the summary; it appears whole or not at all. `config.yaml` says what all of it was
made with, and guards against results of different settings in one folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from envs.scenarios import ScenarioError
from envs.scenarios.yaml_file import read_yaml
from envs.simulator import Result
from envs.workloads import RequestTable
from scripts.experiments.metrics import summary_of

CURVE_POINTS = 201
_KEY = b"servegym"
_PS_PER_S = 1e12
_FILES = (
    "summary.parquet",
    "summary.csv",
    "table.csv",
    "tuning.csv",
    "predictions.csv",
    "report.html",
    "config.yaml",
)
_FOLDERS = ("requests", "workloads")


@dataclass(frozen=True)
class Record:
    """What is kept of one finished task for tables and plots.

    Attributes:
        scenario: Name of the scenario.
        seed: Seed of the episode.
        router: Label of the policy.
        summary: Metrics (`summary_of`, and what the simulation took).
        curves: `e2e_s` and `ttft_s` at `CURVE_POINTS` equally spaced shares from 0 to 1.
    """

    scenario: str
    seed: int
    router: str
    summary: dict[str, float]
    curves: dict[str, list[float]]


@dataclass(frozen=True)
class Store:
    """Results below one folder.

    Attributes:
        folder: The folder; made on the first write.
        keep_requests: Whether the outcome of every request is kept beside the summaries.
    """

    folder: Path
    keep_requests: bool = True

    def write(self, record: Record, result: Result) -> None:
        """Keep a finished task."""
        outcome = _outcome(record, result) if self.keep_requests else pa.table({})
        text = json.dumps(record.__dict__)
        outcome = outcome.replace_schema_metadata({_KEY: text.encode()})
        _write(outcome, self._part(record.scenario, record.seed, record.router))

    def write_workload(self, scenario: str, seed: int, table: RequestTable) -> None:
        """Keep the requests of an episode; their rows are those of its files in `requests/`."""
        path = self.folder / "workloads" / f"{slug(scenario)}.{seed}.parquet"
        if self.keep_requests and not path.exists():
            _write(pa.Table.from_pandas(table.to_frame(all_columns=False)), path)

    def read(self, scenario: str, seed: int, router: str) -> Record | None:
        """What was kept of a task; None where it is not finished."""
        path = self._part(scenario, seed, router)
        if not path.exists():
            return None
        try:
            record = Record(**json.loads(pq.read_schema(path).metadata[_KEY]))
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError):
            return None  # a damaged file is made again
        same = (record.scenario, record.seed, record.router) == (scenario, seed, router)
        return record if same and _holds_numbers(record.summary, record.curves) else None

    def _part(self, scenario: str, seed: int, router: str) -> Path:
        return self.folder / "requests" / f"{slug(scenario)}.{seed}.{slug(router)}.parquet"

    def clear(self) -> None:
        """Remove what a comparison wrote here, and nothing else."""
        for name in _FILES:
            (self.folder / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            for path in [*(self.folder / name).glob("*.parquet"), *(self.folder / name).glob(".*")]:
                path.unlink()

    def give_up(self) -> None:
        """Remove what a comparison without any result left here, and the folder if it is empty."""
        if any((self.folder / "requests").glob("*.parquet")) or not self.folder.is_dir():
            return
        self.clear()
        for folder in (*(self.folder / name for name in _FOLDERS), self.folder):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def claim(self, identity: dict[str, Any], about: dict[str, Any]) -> None:
        """Write `config.yaml`, after checking that what is there fits to it.

        Scenarios, policies and seeds may be added to a folder. What it holds already must have
        been made in the same way.

        Args:
            identity: Everything that can change a result. Its parts `scenarios` and `routers` map
                names to data.
            about: What else is worth to know: command, machine, versions, date.

        Raises:
            ValueError: The folder's results were made differently; the message names what
                differs.
        """
        path = self.folder / "config.yaml"
        old = _identity(path)
        if not old and any((self.folder / "requests").glob("*.parquet")):
            raise ValueError(
                f"{path}: missing, empty or damaged, so nobody knows what made the results beside "
                "it; give another folder with -o, or --overwrite to throw them away"
            )
        identity = json.loads(json.dumps(identity))
        differing = list(_differences(old, identity)) if old else []
        if differing:
            more = f" (and {len(differing) - 3} more)" if len(differing) > 3 else ""
            raise ValueError(
                f"{path}: the folder holds results of other settings: "
                f"{'; '.join(differing[:3])}{more}; "
                "give another folder with -o, or --overwrite to throw them away"
            )
        for part in ("scenarios", "routers"):
            identity[part] = old.get(part, {}) | identity[part]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.write_text("config.yaml", _yaml(about | {"hash": digest, "identity": identity}))

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the folder, whole or not at all."""
        path = self.folder / name
        with _whole(path) as beside:
            beside.write_text(text, encoding="utf-8")
        return path

    def write_frame(self, name: str, frame: pd.DataFrame) -> Path:
        """Write a table of the folder as `.parquet` or `.csv`, whole or not at all."""
        path = self.folder / name
        with _whole(path) as beside:
            if path.suffix == ".parquet":
                frame.to_parquet(beside, index=False)
            else:
                frame.to_csv(beside, index=False)
        return path


def record(scenario: str, seed: int, router: str, result: Result, wall_s: float) -> Record:
    """Take from a result what tables and plots need; `wall_s` is what the simulation took."""
    summary = summary_of(result) | {"wall_s": wall_s}
    shares = np.linspace(0.0, 1.0, CURVE_POINTS)
    latencies = result.latencies()
    curves = {
        name: [float(f"{x:.5g}") for x in np.quantile(latencies[name], shares)]
        if len(latencies[name])
        else []
        for name in ("e2e_s", "ttft_s")
    }
    return Record(scenario, seed, router, summary, curves)


def slug(text: str) -> str:
    """A file name for any text; other texts have other names."""
    plain = re.sub(r"[^A-Za-z0-9_=,-]+", "-", text)
    if plain == text and len(plain) <= 80:
        return plain
    return f"{plain[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _outcome(record: Record, result: Result) -> pa.Table:
    """Per request: seconds since its arrival (null = never), instance, counts and status.

    Every row tells its task, so that all files of a folder can be read as one table.
    """
    requests = result.requests
    names = {"scenario": record.scenario, "router": record.router, "seed": record.seed}
    columns: dict[str, Any] = {
        name: pa.repeat(value, len(requests)).dictionary_encode() for name, value in names.items()
    }
    columns["request_id"] = np.asarray(result.table.request_id)
    for name in ("dispatch", "admit", "first_token", "finish"):
        times = requests[f"{name}_ps"]
        # Single precision is good to a millionth of the value, at half of the size.
        since = ((times - requests["arrival_ps"]) / _PS_PER_S).astype(np.float32)
        columns[f"{name}_after_s"] = pa.array(since, mask=times < 0)
    columns["instance"] = pa.array(requests["instance"].astype(np.int32))
    for name in ("preemptions", "failures"):
        columns[name] = pa.array(requests[name].astype(np.int32))
    columns["status"] = pa.array(requests["status"].astype(np.int8))
    return pa.table(columns)


def _write(table: pa.Table, path: Path) -> None:
    # Times never repeat: splitting their bytes packs them better than a dictionary.
    floats = [f.name for f in table.schema if pa.types.is_floating(f.type)]
    others = [name for name in table.column_names if name not in floats]
    with _whole(path) as beside:
        pq.write_table(
            table, beside, compression="zstd", use_dictionary=others, use_byte_stream_split=floats
        )


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of `path` when all of it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that who reads the folder as one table does not see it.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _holds_numbers(summary: Any, curves: Any) -> bool:
    """Whether the parts of a record, which the file does not type, are what they should be."""
    if not (isinstance(summary, dict) and isinstance(curves, dict)):
        return False
    if not all(isinstance(curve, list) for curve in curves.values()):
        return False
    values = [*summary.values(), *(value for curve in curves.values() for value in curve)]
    return all(isinstance(value, float | int) for value in values)


def _identity(path: Path) -> dict[str, Any]:
    """What made the results beside a `config.yaml`; empty where that cannot be told."""
    try:
        found = json.loads(json.dumps(read_yaml(path).get("identity")))
    except (ScenarioError, TypeError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    parts = (found.get(part, {}) for part in ("scenarios", "routers"))
    return found if all(isinstance(part, dict) for part in parts) else {}


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """What differs, as sentences; names that only one side has are no difference at the top."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        open_ended = path in {"scenarios", "routers"}
        for key in sorted(old.keys() | new.keys()):
            if not (open_ended and (key not in old or key not in new)):
                at = f"{path}.{key}" if path else str(key)
                yield from _differences(old.get(key), new.get(key), at)
    elif old != new:
        yield f"{path} is {_short(old)} there and {_short(new)} now"


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _yaml(data: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(data, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
