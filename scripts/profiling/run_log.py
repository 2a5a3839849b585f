"""A served run on disk, in the fields of the vLLM runs that the simulator is held against."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

FILES = ("requests.jsonl.gz", "meta.json")


@dataclass(frozen=True)
class Served:
    """One request; `*_ts` on one monotonic clock [s], `arrival_time` since 1970 [s]."""

    request_id: str
    input_toks: int
    output_toks: int
    arrival_time: float
    queued_ts: float
    """When the engine was given it."""
    scheduled_ts: float
    """When its first step began to be planned."""
    first_token_ts: float
    last_token_ts: float


def check_folder(folder: Path, overwrite: bool) -> None:
    """See to it that no other run is lost.

    Raises:
        ValueError: The folder holds a run, or is a file.
    """
    if folder.is_file():
        raise ValueError(f"{folder} is a file; -o takes a folder for a served run")
    if not overwrite and any((folder / name).exists() for name in FILES):
        raise ValueError(f"{folder} holds a run: give another folder with -o, or --overwrite")


def write_run(folder: Path, served: list[Served], meta: dict[str, Any]) -> None:
    """Write `requests.jsonl.gz`, a line a request in order of arrival, and `meta.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(served, key=lambda request: request.arrival_time)
    lines = "".join(json.dumps(asdict(request)) + "\n" for request in ordered)
    with gzip.open(folder / FILES[0], "wt", encoding="utf-8") as file:
        file.write(lines)
    (folder / FILES[1]).write_text(json.dumps(meta, indent=2) + "\n", encoding="utf-8")


def summarise(served: list[Served], asked: int, started: float) -> dict[str, float]:
    """Give counts, means [s] and tokens per second.

    Args:
        served: Requests that were served.
        asked: Requests that were sent.
        started: When the first was sent, on the clock of `*_ts` [s].
    """
    first = np.array([one.first_token_ts - one.queued_ts for one in served])
    whole = np.array([one.last_token_ts - one.queued_ts for one in served])
    output = np.array([one.output_toks for one in served])
    several = output > 1
    each = (whole - first)[several] / (output[several] - 1)
    makespan = max((one.last_token_ts for one in served), default=started) - started
    return {
        "requests": float(asked),
        "served": float(len(served)),
        "mean_ttft_s": float(first.mean()) if len(served) else float("nan"),
        "mean_tpot_s": float(each.mean()) if len(each) else float("nan"),
        "mean_latency_s": float(whole.mean()) if len(served) else float("nan"),
        "makespan_s": float(makespan),
        "output_tokens_per_s": float(output.sum() / makespan) if makespan > 0 else float("nan"),
    }
