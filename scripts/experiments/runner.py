"""Running a comparison: every policy on every scenario and seed, in parallel, resumable."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event
from typing import Any, NamedTuple, Protocol

from envs.simulator import Result
from scripts.experiments.cases import Case, Episode
from scripts.experiments.contenders import Agent, Contender
from scripts.experiments.progress import progress
from scripts.experiments.store import Record, Store, record

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_stop: Event | None = None


class Measure(Protocol):
    """What is kept of a run; picklable."""

    def __call__(
        self, contender: Contender, episode: Episode, result: Result, wall_s: float
    ) -> Record:
        """The record of a finished task; `wall_s` is what the simulation took."""


def latencies(contender: Contender, episode: Episode, result: Result, wall_s: float) -> Record:
    """Summary and latencies of a run."""
    return record(episode.scenario.name, episode.seed, contender.label, result, wall_s)


@dataclass(frozen=True)
class Job:
    """Tasks of one episode for one process."""

    case: Case
    seed: int
    contenders: tuple[Contender, ...]


class _Told(NamedTuple):
    """A warning of a worker."""

    message: str
    category: type[Warning]
    filename: str
    lineno: int


def run_comparison(
    store: Store,
    cases: Sequence[Case],
    seeds: Sequence[int],
    contenders: Sequence[Contender],
    workers: int = 1,
) -> tuple[list[Record], int]:
    """Run what is not in the store yet.

    All policies of a (scenario, seed) serve the same table, arrivals, lengths and predictions
    alike, so that differences between them are paired.

    Args:
        store: Where finished tasks are kept, and looked for.
        cases: The scenarios.
        seeds: The seeds of the episodes.
        contenders: The policies.
        workers: Processes; 1 runs everything in this one.

    Returns:
        One record a task, in the order of cases, seeds, contenders; and how many of them were
        in the store already.

    Raises:
        KeyboardInterrupt: The user stopped it; what is finished is in the store.
    """
    jobs = [Job(case, seed, tuple(contenders)) for case in cases for seed in seeds]
    return run_jobs(store, jobs, workers)


def run_jobs(
    store: Store,
    jobs: Sequence[Job],
    workers: int = 1,
    measure: Measure = latencies,
    title: str = "simulated",
    prepare: Callable[[Sequence[Job]], None] | None = None,
) -> tuple[list[Record], int]:
    """Run those tasks of some jobs that are not in the store yet.

    Args:
        store: Where finished tasks are kept, and looked for.
        jobs: The tasks, each (scenario, seed, policy) once.
        workers: Processes; 1 runs everything in this one.
        measure: What is taken from each run.
        title: What is told of the progress.
        prepare: Compiles what jobs need; without it, every rule is run on a few requests.

    Returns:
        As `run_comparison`, in the order of the jobs.

    Raises:
        KeyboardInterrupt: The user stopped it; what is finished is in the store.
    """
    found: dict[tuple[str, int, str], Record] = {}
    missing: list[Job] = []
    for job in jobs:
        todo = []
        for contender in job.contenders:
            old = store.read(job.case.name, job.seed, contender.label)
            if old is None:
                todo.append(contender)
            else:
                found[job.case.name, job.seed, contender.label] = old
        if todo:
            missing.append(replace(job, contenders=tuple(todo)))
    count, reused = sum(len(job.contenders) for job in missing), len(found)
    if missing:
        (prepare or _compile)(missing)
        parts = _parts(missing, max(1, count // (4 * workers)))
        with progress(title, reused + count, reused) as advance:
            for finished in _results(parts, store, min(workers, len(parts)), measure):
                found |= {(r.scenario, r.seed, r.router): r for r in finished}
                advance(len(finished))
    records = [found[job.case.name, job.seed, c.label] for job in jobs for c in job.contenders]
    return records, reused


def run_job(
    job: Job,
    store: Store,
    measure: Measure = latencies,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Record]:
    """Run and store the tasks of a job; between two of them it may be stopped."""
    episode = job.case.episode(job.seed)
    store.write_workload(job.case.name, job.seed, episode.table)
    done = []
    for contender in job.contenders:
        if stopped():
            break
        done.append(_run_task(contender, episode, store, measure))
    return done


def _run_task(contender: Contender, episode: Episode, store: Store, measure: Measure) -> Record:
    start = time.perf_counter()
    try:
        result = contender.run(episode)
    except ValueError as error:
        name = episode.scenario.name
        text = f"{contender.label} on {name}, seed {episode.seed}: {error}"
        raise ValueError(text) from error
    wall_s = time.perf_counter() - start
    kept = measure(contender, episode, result, wall_s)
    store.write(kept, result)
    return kept


def _compile(jobs: Sequence[Job]) -> None:
    """Compile everything here, once, so that the workers find it in Numba's cache on disk."""
    job = jobs[0]
    rules = {c.label: c for job in jobs for c in job.contenders if not isinstance(c, Agent)}
    if not rules:
        return
    episode = job.case.episode(job.seed)
    few = replace(episode, table=episode.table[:20])
    for label in sorted(rules):
        rules[label].run(few)


def _parts(missing: Sequence[Job], most: int) -> list[Job]:
    """Jobs of at most `most` tasks; agents, which are slow, have theirs alone and first."""
    slow, fast = [], []
    for job in missing:
        agents = [c for c in job.contenders if isinstance(c, Agent)]
        others = [c for c in job.contenders if not isinstance(c, Agent)]
        slow += [Job(job.case, job.seed, (agent,)) for agent in agents]
        starts = range(0, len(others), most)
        fast += [Job(job.case, job.seed, tuple(others[at : at + most])) for at in starts]
    return slow + fast


def _results(
    jobs: Sequence[Job], store: Store, workers: int, measure: Measure
) -> Iterator[list[Record]]:
    if workers == 1:
        for job in jobs:
            yield run_job(job, store, measure)
        return
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(workers, context, _start_worker, (stop,)) as pool:
        futures = [pool.submit(_work, job, store, measure) for job in jobs]
        try:
            for future in as_completed(futures):
                records, warned = future.result()
                for told in warned:
                    # Shown by the filters of this process: once, however many workers met it.
                    warnings.warn_explicit(told.message, told.category, told.filename, told.lineno)
                yield records
        except BaseException:
            # Running jobs end with their present task; what they finished is in the store.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(stop: Any) -> None:
    global _stop
    _stop = stop
    # Ctrl-C reaches all processes of the terminal; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(job: Job, store: Store, measure: Measure) -> tuple[list[Record], list[_Told]]:
    with warnings.catch_warnings(record=True) as caught:
        records = run_job(job, store, measure, lambda: _stop is not None and _stop.is_set())
    return records, [_Told(str(w.message), w.category, w.filename, w.lineno) for w in caught]
