"""Time the steps of a grid, and write each as soon as it is known."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from envs.hardware.catalogue import ModelShape
from scripts.experiments.progress import progress, say
from scripts.profiling.attention import lower_right
from scripts.profiling.clock import Run, Timing, graphed, measure, settle
from scripts.profiling.device import clocks, device_facts, free_bytes
from scripts.profiling.grid import Point
from scripts.profiling.plan import Plan, make_plan
from scripts.profiling.stack import Stack
from scripts.profiling.step_file import StepFile

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
CLOCKS_EVERY = 20
"""Points between two looks at the clocks, which take the device's idle time."""

NOT_TIMED = (
    "time of an engine around the kernels (scheduling, sampling other than the likeliest token, "
    "output)",
    "paged attention: every sequence of a step has the same context, in one piece",
    "communication between GPUs",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the steps are timed."""

    gpu: str
    """Name of the GPU in the rows."""
    precision: str
    """`bf16` or `fp32`."""
    layers: int
    """Layers to time; 0 = as many as fit."""
    graphs: str
    """Which steps are replayed as CUDA graphs: `decode`, `all` or `never`."""
    warmup: int
    repeats: int
    budget_s: float
    """Time for the repetitions of one step [s]."""
    settle_s: float
    """Time under load before the first step [s]."""
    seed: int


@dataclass(frozen=True)
class Profile:
    """What a run added to the file."""

    plan: Plan
    measured: int
    """Steps timed now."""
    held: int
    """Steps that the file held already."""
    failed: dict[Point, str]
    """Steps that did not fit, with the reason."""


def profile(
    shape: ModelShape,
    points: list[Point],
    device: torch.device,
    settings: Settings,
    file: StepFile,
    about: dict[str, Any],
    overwrite: bool = False,
) -> Profile:
    """Time those of the points that fit and that the file does not hold.

    Args:
        shape: Sizes of the model.
        points: Steps, in the order in which they are timed.
        device: Where to time them.
        settings: How.
        file: Where the rows go.
        about: What else the notes should hold: command, machine, versions, date.
        overwrite: Whether rows that were timed in another way may be thrown away.

    Raises:
        ValueError: The weights do not fit, or the file holds rows of other settings.
    """
    dtype = DTYPES[settings.precision]
    # The memory that is free varies: a file is continued with the layers with which it began.
    layers = settings.layers or (0 if overwrite else file.layers_timed())
    plan = make_plan(shape, points, layers, free_bytes(device), dtype.itemsize)
    graphs = settings.graphs if device.type == "cuda" else "never"
    identity = device_facts(device) | {
        "model": shape.name,
        "gpu": settings.gpu,
        "tensor_parallel": 1,
        "engine": "torch",
        "precision": settings.precision,
        "layers": shape.layers,
        "layers_timed": plan.layers,
        "cuda_graphs": graphs,
    }
    file.claim(identity, overwrite)
    for point, reason in plan.skipped.items():
        say(f"left out, does not fit: {point} ({reason})")
    held = file.done(plan.points)
    todo = [point for point in plan.points if point not in held]
    failed = dict(plan.skipped)
    source = (
        f"servegym profile-gpu, {plan.layers} of {shape.layers} layers, kernels only; "
        f"{identity['device_name']}, torch {identity['torch']}"
    )
    notes = about | {"identity": identity, "how": _how(shape, plan), "not_timed": NOT_TIMED}
    if not todo:
        return Profile(plan, 0, len(held), failed)
    say(f"making {plan.layers} of {shape.layers} layers of {shape.name} on {device} ...")
    try:
        stack = Stack(
            shape, plan.layers, plan.cache_tokens, plan.positions, device, dtype, settings.seed
        )
    except torch.OutOfMemoryError:
        raise ValueError(f"{plan.layers} layers and the cache do not fit: say --layers") from None
    seen = [{"at": "start", **clocks(device)}]
    if device.type == "cuda" and stack.chunk_attention is not lower_right:
        say("no fused attention to a history here: prefill after a history is slower than it could")
    with suppress(torch.OutOfMemoryError):
        settle(stack.step(stack.inputs(todo[0])), device, settings.settle_s)
    notes |= {
        "attention": stack.chunk_attention.__name__,
        "cache_tokens": plan.cache_tokens,
        "warmup": settings.warmup,
        "repeats": settings.repeats,
    }
    measured = 0
    try:
        with progress("steps", len(plan.points), done=len(held)) as advance:
            for point in todo:
                try:
                    timing = _time(stack, point, graphs, settings)
                except RuntimeError as error:
                    if not _is_out_of_memory(error):
                        raise
                    failed[point] = "out of memory"
                    say(f"left out, out of memory: {point}")
                    torch.cuda.empty_cache()
                else:
                    file.add(identity, point, timing, source)
                    measured += 1
                if measured % CLOCKS_EVERY == 1:
                    seen.append({"at": str(point), **clocks(device)})
                advance(1)
    finally:
        seen.append({"at": "end", **clocks(device)})
        skipped = {str(point): reason for point, reason in failed.items()}
        file.note(notes | {"clocks": seen, "skipped": skipped})
    return Profile(plan, measured, len(held), failed)


def _how(shape: ModelShape, plan: Plan) -> str:
    if plan.layers == shape.layers:
        return "whole steps: embedding, all layers, last norm, output layer, likeliest token"
    return (
        f"{plan.layers} layers times {shape.layers / plan.layers:.6g}, plus embedding, last norm, "
        "output layer and likeliest token, timed apart and added once"
    )


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, be it while a graph was recorded, which ends in another error."""
    if error is None or isinstance(error, torch.OutOfMemoryError):
        return error is not None
    return _is_out_of_memory(error.__context__)


def _time(stack: Stack, point: Point, graphs: str, settings: Settings) -> Timing:
    inputs = stack.inputs(point)
    record = graphs == "all" or (graphs == "decode" and point.kind == "decode")

    def timed(run: Run) -> Timing:
        use = graphed(run) if record else run
        return measure(use, stack.device, settings.warmup, settings.repeats, settings.budget_s)

    depth = stack.shape.layers / len(stack.layers)
    if depth == 1:
        return timed(stack.step(inputs))
    layers, ends = timed(stack.layers_only(inputs)), timed(stack.ends_only(inputs))
    return Timing(
        median_s=depth * layers.median_s + ends.median_s,
        p10_s=depth * layers.p10_s + ends.p10_s,
        p90_s=depth * layers.p90_s + ends.p90_s,
        repeats=layers.repeats,
    )
