"""Serve a stream of requests of any length in bounded memory, and write each outcome.

The stream is a request table (Parquet, CSV, gzipped CSV; `servegym trace FILE -o` makes one of any
trace), or `--requests` of the router paper's mix. Outcomes are those of `servegym simulate`, bit by
bit, and are written as requests finish; memory follows the requests in flight and `--rows`.
Percentiles in the summary are within 0.5 %. Ctrl-C ends the replay and keeps what was written.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scripts.common import ObjectiveArgs, SeededArgs, counted, refuse_existing, show, table

if TYPE_CHECKING:
    import numpy as np

    from envs.simulator import EngineConfig
    from envs.workloads import RequestTable
    from scripts.experiments.outcomes import OutcomeFile

EXAMPLE = """servegym replay requests.parquet --fleet fleet.yaml -o outcomes.parquet
  servegym replay --requests 10000000 --rate 6 --fleet v100-llama2-7b-x4 --router jsq"""

_INTERRUPTED = 130
_COLUMNS = ("mean", "p50", "p90", "p95", "p99")
_TITLES = {"e2e": "end to end (s)", "ttft": "first token (s)"}


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs, ObjectiveArgs):
    """Options of `servegym replay`."""

    trace: Annotated[Path | None, tyro.conf.Positional] = None
    """Request table to serve."""
    requests: int | None = None
    """Serve so many requests of the router paper's mix instead."""
    rate: float | None = None
    """Their mean rate, requests a second."""
    fleet: str = "v100-llama2-7b-x4"
    """Fleet that serves them: a preset or a YAML file."""
    router: str = "jsq"
    """Routing rule, with parameters like `pull_sjf:theta=0.3`, or an own one, `FILE.py:NAME`."""
    sigma: float | None = None
    """Predict output lengths, as truth times lognormal(0, sigma); without it, those of the
    trace, else 0.5."""
    queue_order: Literal["fcfs", "sjf"] | None = None
    """Order of the router queue; without it, the router's own."""
    rows: int = 50_000
    """Requests that are read and laid out at a time; no outcome depends on it."""
    overwrite: bool = False
    """Replace the file of `--output`."""


def main(args: Args) -> int:
    """Run the command."""
    from envs.scenarios import load_fleet
    from envs.simulator.streaming import replay
    from scripts.experiments.contenders import parse_router
    from scripts.experiments.fleets import fleet_data, fleets_text
    from scripts.experiments.machine import peak_memory_bytes
    from scripts.experiments.outcomes import OutcomeFile
    from scripts.experiments.progress import pace, say
    from scripts.experiments.rejections import rejections_of

    parts, total = _stream(args)
    router = parse_router(args.router)
    known = load_fleet(args.fleet)
    engines = known.engines()
    _refuse_what_needs_the_table(args.fleet, engines)
    if args.output is not None and not args.overwrite:
        refuse_existing(args.output)
    options: dict[str, Any] = {"slo_s": _limits(args), "seed": args.seed}
    if args.queue_order is not None:
        options["queue_order"] = args.queue_order
    policy = router.policy()
    policy.compiled  # noqa: B018 - so that compiling is not counted as replay
    start = time.perf_counter()
    with (
        OutcomeFile(args.output) if args.output is not None else nullcontext() as file,
        pace("served", total) as advance,
        _ended_between_parts() as ended,
    ):
        count = _Count(file, advance)
        try:
            result = replay(_until(parts, ended), engines, policy, write=count.write, **options)
        except KeyboardInterrupt:
            told = f"; those are in {args.output}" if file is not None and file.rows else ""
            say(f"stopped with {count.rows:,} requests served or rejected{told}")
            return _INTERRUPTED
    seconds = time.perf_counter() - start
    summary, file_bytes = _summary(args, result.summary()), None
    if args.output is not None:
        file_bytes = args.output.stat().st_size
    data: dict[str, Any] = {
        "router": router.label,
        "instances": len(engines),
        "seconds": seconds,
        "requests_per_s": summary["arrived"] / seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "fleet": fleet_data(engines),
        "slo": args.objectives(),
        "summary": summary,
        "rejections": rejections_of(count.by_status.tolist()),
        "written": args.output,
        "written_bytes": file_bytes,
    }
    show(args, data, f"{_text(data)}\n\n{fleets_text({known.name: data['fleet']})}")
    return 0


class _Count:
    """Passes outcomes on, and counts them."""

    def __init__(self, file: OutcomeFile | None, advance: Any) -> None:
        import numpy as np

        from envs.simulator.layout import STATUS_TEXT

        self.file, self.advance, self.rows = file, advance, 0
        self.by_status = np.zeros(len(STATUS_TEXT), np.int64)

    def write(self, outcomes: np.ndarray) -> None:
        """Take the outcomes of a part."""
        import numpy as np

        if self.file is not None:
            self.file.write(outcomes)
        self.rows += len(outcomes)
        self.by_status += np.bincount(outcomes["status"], minlength=len(self.by_status))
        self.advance(len(outcomes))


def _stream(args: Args) -> tuple[Iterator[RequestTable], int | None]:
    """The parts to serve, and the number of requests where it is known."""
    from envs.workloads import parquet_rows, predicted_parts, read_parts, router_mix_parts

    if args.trace is None and args.requests is None:
        raise ValueError("give TRACE, or --requests N --rate R")
    if args.trace is not None and args.requests is not None:
        raise ValueError(f"{args.trace} and --requests {args.requests} are both given: give one")
    if args.rows < 1:
        raise ValueError(f"--rows {args.rows}: give 1 or more")
    if args.sigma is not None and not 0 <= args.sigma < float("inf"):
        raise ValueError(f"--sigma {args.sigma}: give a finite number, 0 or more")
    if args.trace is not None:
        if args.rate is not None:
            raise ValueError("--rate goes with --requests, not with TRACE")
        parts = read_parts(args.trace, args.rows)
        if args.sigma is None:
            return _told_or_predicted(parts, args.seed), parquet_rows(args.trace)
        return predicted_parts(parts, args.sigma, args.seed), parquet_rows(args.trace)
    assert args.requests is not None  # told apart above
    if args.rate is None:
        raise ValueError("--requests needs --rate, requests a second")
    parts = router_mix_parts(args.requests, args.rate, args.seed, args.rows)
    sigma = 0.5 if args.sigma is None else args.sigma
    return predicted_parts(parts, sigma, args.seed), args.requests


def _told_or_predicted(parts: Iterator[RequestTable], seed: int) -> Iterator[RequestTable]:
    """The parts with the predictions of the trace, else with usual ones."""
    import itertools

    from envs.workloads import predicted_parts

    first = next(parts)
    parts = itertools.chain([first], parts)
    told = int(first.predicted_output_tokens.min()) >= 1
    yield from parts if told else predicted_parts(parts, 0.5, seed)


def _refuse_what_needs_the_table(fleet: str, engines: Sequence[EngineConfig]) -> None:
    """Name the option of the fleet that a stream, of which the past is forgotten, cannot have."""
    from envs.simulator.blank import ROW_ALONE

    for engine in engines:
        needs = {
            f"queue {engine.scheduler.name}": engine.scheduler not in ROW_ALONE,
            "prefix_cache": engine.prefix_cache,
            f"adapter_tokens {engine.adapter_tokens}": engine.adapter_tokens > 0,
        }
        for option, given in needs.items():
            if given:
                raise ValueError(
                    f"--fleet {fleet}: {option} of {engine.name} needs all requests at once: leave "
                    "it out, or take servegym simulate --trace"
                )


def _summary(args: Args, found: dict[str, float]) -> dict[str, float]:
    """The totals with what was inside the objectives, if there are any."""
    good = {key: found.pop(key) for key in ("good_requests", "good_tokens")}
    if not args.objectives():
        return found
    span = found["makespan_s"]
    goodput = good["good_tokens"] / span if span > 0 else float("nan")
    share = good["good_requests"] / max(found["arrived"], 1.0)
    return found | good | {"slo_attainment": share, "goodput_tokens_per_s": goodput}


def _limits(args: Args) -> tuple[float, float, float]:
    found = args.objectives()
    ttft, tbt, e2e = (found.get(f"{name}_s", float("inf")) for name in ("ttft", "tbt", "e2e"))
    return ttft, tbt, e2e


@contextmanager
def _ended_between_parts() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that nothing is cut in the middle; a second one ends at once."""
    ended = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield ended
        return
    usual = signal.getsignal(signal.SIGINT)

    def end(number: int, frame: Any) -> None:
        ended.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, end)
    try:
        yield ended
    finally:
        signal.signal(signal.SIGINT, usual)


def _until(parts: Iterable[RequestTable], ended: threading.Event) -> Iterator[RequestTable]:
    """The parts up to the user's Ctrl-C."""
    for part in parts:
        if ended.is_set():
            raise KeyboardInterrupt
        yield part
    if ended.is_set():
        raise KeyboardInterrupt


def _text(data: dict[str, Any]) -> str:
    from scripts.experiments.metrics import number, objective_facts
    from scripts.experiments.rejections import rejections_text

    found = data["summary"]
    counts = f"{found['served']:,.0f} of {found['arrived']:,.0f} requests served"
    if found["rejected"]:
        counts += f", {found['rejected']:,.0f} rejected"
    rows = [["latency", *_COLUMNS]]
    for name, title in _TITLES.items():
        rows.append([title, *(number(found[f"{name}_{column}_s"]) for column in _COLUMNS)])
    # A short replay takes some milliseconds.
    seconds = number(data["seconds"]) if data["seconds"] >= 0.1 else f"{data['seconds']:.1g}"
    memory = f"{data['peak_memory_bytes'] / 2**20:,.0f} MiB"
    facts = [
        ["makespan", f"{number(found['makespan_s'])} s"],
        ["preemptions", number(found["preemptions"])],
        ["most requests in flight at the end of a part", f"{found['most_in_flight']:,.0f}"],
        ["replayed in", f"{seconds} s, {data['requests_per_s']:,.0f} requests/s"],
        ["peak memory of the process", memory],
    ]
    if data["slo"]:
        facts += objective_facts(data["slo"], found)
    if data["written"] is not None:
        size = f"{data['written_bytes'] / 2**20:,.1f} MiB"
        facts.append(["written", f"{data['written']}, {size}"])
    head = f"{data['router']}: {counts} by {counted(data['instances'], 'instance')}"
    head += rejections_text(data["rejections"])
    return f"{head}\n\n{table(rows)}\n\n{table(facts)}"


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
