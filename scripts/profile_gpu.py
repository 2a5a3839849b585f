"""Time a model's steps on a GPU with random weights, for `servegym fit-cost-model --steps`.

With `--engine transformers`, serve a Poisson workload with a real engine instead, and log it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scripts.common import SeededArgs, show, table

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from envs.hardware.catalogue import ModelShape

EXAMPLE = """servegym profile-gpu --model Llama-3.1-8B
  servegym profile-gpu --model Llama-3.1-70B --layers 40 -o runs/70b.csv
  servegym profile-gpu --model Llama-3.1-8B --engine transformers --rate 4 --requests 300"""

_WIDE = 0.5
"""Spread of a step's repetitions, over their median, from which on it is warned of."""

Numbers = Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")]


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym profile-gpu`."""

    model: str
    """Dense model of the catalogue, or a `config.json` in the form of Hugging Face."""
    gpu: str | None = None
    """GPU's name in the catalogue; without it, the one that the device's name tells."""
    device: str = "auto"
    """`cuda`, `cuda:1` or `cpu`; without it, the first CUDA device."""
    engine: Literal["torch", "transformers"] = "torch"
    """`torch` times steps of the layers; `transformers` serves requests by its continuous
    batching, and logs their times."""
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format: bf16 on CUDA, fp32 on the CPU."""
    layers: int = 0
    """Layers to make; times are scaled to the model's. 0 = all, or as many as fit."""
    decode_batches: Numbers = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Sequences of decode steps."""
    contexts: Numbers = (128, 512, 1024, 2048, 4096, 8192, 16384)
    """Tokens that each of them attends to."""
    chunks: Numbers = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    """New tokens of prefill steps."""
    histories: Numbers = (0, 1024, 4096, 16384)
    """Earlier tokens of the same prompt."""
    mixed_batches: Numbers = (1, 8, 32, 128, 256)
    """Sequences that decode beside a chunk, in one step."""
    mixed_contexts: Numbers = (512, 2048)
    """Tokens that each of them attends to."""
    mixed_chunks: Numbers = (64, 256, 1024, 2048)
    """New tokens of the chunk."""
    cuda_graphs: Literal["decode", "all", "never"] = "decode"
    """Steps that are replayed as CUDA graphs, as engines do for decodes; none on the CPU."""
    warmup: int = 5
    """Calls before those that count."""
    repeats: int = 20
    """Calls that count, by their median."""
    budget: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 2.0
    """Time after which a step is repeated no more (three times at least)."""
    settle: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 3.0
    """Load before the first step, so that clocks settle."""
    rate: float = 4.0
    """`transformers`: requests per second, Poisson."""
    requests: int = 300
    """`transformers`: number of requests."""
    prompt_tokens: float = 1000.0
    """`transformers`: mean prompt; lengths are lognormal."""
    output_tokens: float = 250.0
    """`transformers`: mean answer; lengths are lognormal."""
    max_tokens: int = 8192
    """`transformers`: longest prompt plus answer."""
    max_num_seqs: int = 256
    """`transformers`: requests of a step at most."""
    max_batched_tokens: int = 2048
    """`transformers`: tokens of a step at most."""
    kv_blocks: int | None = None
    """`transformers`: blocks of the cache; without it, what the memory leaves."""
    block_size: int = 256
    """`transformers`: tokens of a block."""
    overwrite: bool = False
    """Replace results of other settings at `--output`."""


def main(args: Args) -> int:
    """Run the command."""
    from pathlib import Path

    from scripts.profiling.shapes import find_shape

    if args.warmup < 1 or args.repeats < 1 or args.budget <= 0 or args.settle < 0:
        raise ValueError("--warmup and --repeats must be at least 1, --budget more than 0")
    shape = find_shape(args.model)
    try:
        from scripts.profiling.device import find_device, gpu_name
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ValueError("torch is absent: pip install 'servegym[agents]'") from None
    device = find_device(args.device)
    name = gpu_name(args.gpu, device)
    precision = args.dtype
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    stem = f"{shape.name}-{name}-{precision}"
    if args.engine == "transformers":
        folder = args.output or Path("runs") / f"transformers-{stem}"
        return _serve(args, shape, device, name, precision, folder)
    file = args.output or Path("runs") / f"profile-{stem}.csv"
    if file.suffix != ".csv":
        raise ValueError(f"-o {file}: steps are written to a .csv, notes to a .csv.json beside it")
    return _profile(args, shape, device, name, precision, file)


def _profile(
    args: Args, shape: ModelShape, device: Any, gpu: str, precision: str, path: Path
) -> int:
    import pandas as pd

    from scripts.experiments.progress import say
    from scripts.profiling.grid import Grid
    from scripts.profiling.step_file import StepFile
    from scripts.profiling.steps import Settings, profile

    grid = Grid(
        decode_batches=args.decode_batches,
        contexts=args.contexts,
        chunks=args.chunks,
        histories=args.histories,
        mixed_batches=args.mixed_batches,
        mixed_contexts=args.mixed_contexts,
        mixed_chunks=args.mixed_chunks,
    )
    settings = Settings(
        gpu=gpu,
        precision=precision,
        layers=args.layers,
        graphs=args.cuda_graphs,
        warmup=args.warmup,
        repeats=args.repeats,
        budget_s=args.budget,
        settle_s=args.settle if device.type == "cuda" else 0.0,
        seed=args.seed,
    )
    points = grid.points(args.seed)
    file = StepFile(path)
    done = profile(shape, points, device, settings, file, _about(args), args.overwrite)
    data = {
        "written": path,
        "notes": file.notes,
        "measured": done.measured,
        "held": done.held,
        "skipped": {str(point): reason for point, reason in done.failed.items()},
        "layers_timed": done.plan.layers,
        "layers": shape.layers,
    }
    held = pd.read_csv(path)
    data["wide_spread"] = _wide(held)
    if data["wide_spread"]:
        say(
            f"warning: {data['wide_spread']} of {len(held)} steps spread by more than "
            f"{_WIDE:.0%} (p10 to p90, over the median): something else ran, or clocks moved; "
            "time them again on a quiet machine"
        )
    show(args, data, f"{_text(held)}\n\n{_ending(data)}")
    return 0


def _serve(
    args: Args, shape: ModelShape, device: Any, gpu: str, precision: str, folder: Path
) -> int:
    from scripts.profiling.engine import Engine, serve
    from scripts.profiling.workload import Load, poisson

    load = Load(args.rate, args.requests, args.prompt_tokens, args.output_tokens, args.max_tokens)
    engine = Engine(
        gpu=gpu,
        precision=precision,
        layers=args.layers,
        max_num_seqs=args.max_num_seqs,
        max_batched_tokens=args.max_batched_tokens,
        kv_blocks=args.kv_blocks,
        block_size=args.block_size,
        seed=args.seed,
    )
    requests = poisson(load, args.seed)
    summary = serve(shape, device, engine, requests, folder, _about(args), args.overwrite)
    rows = [["served by transformers", ""]]
    rows += [[name.replace("_", " "), f"{value:.4g}"] for name, value in summary.items()]
    show(args, {"written": folder, "summary": summary}, f"{table(rows)}\nwritten: {folder}")
    return 0


def _about(args: Args) -> dict[str, Any]:
    from scripts.experiments.machine import command_line, machine, now, versions

    about = {"command": command_line(), "date": now(), "seed": args.seed}
    return about | {"machine": machine(), "versions": versions()}


def _spread(held: pd.DataFrame) -> pd.Series:
    return (held["p90_s"] - held["p10_s"]) / held["seconds"]


def _wide(held: pd.DataFrame) -> int:
    """Steps whose repetitions differ too much for their median to mean much."""
    return int((_spread(held) > _WIDE).sum())


def _text(held: pd.DataFrame) -> str:
    b, n = held["decode_seqs"], held["prefill_tokens"]
    kinds = {"decode": n == 0, "prefill": b == 0, "mixed": (n > 0) & (b > 0)}
    rows = [["step", "rows", "shortest (ms)", "longest (ms)", "median spread p10-p90"]]
    for kind, chosen in kinds.items():
        part = held[chosen]
        if len(part):
            spread = _spread(part).median()
            times = [f"{1e3 * part['seconds'].agg(which):.3g}" for which in ("min", "max")]
            rows.append([kind, str(len(part)), *times, f"{spread:.1%}"])
    return table(rows)


def _ending(data: dict[str, Any]) -> str:
    lines = [f"{data['measured']} steps timed now, {data['held']} before"]
    if data["skipped"]:
        lines.append(f"{len(data['skipped'])} left out, see {data['notes']}")
    if data["layers_timed"] < data["layers"]:
        lines.append(
            f"{data['layers_timed']} of {data['layers']} layers were timed and scaled; embedding, "
            "last norm and output layer were timed apart and added once"
        )
    lines.append("kernels alone: an engine's own time and paged attention are not in these times")
    lines.append(
        f"written: {data['written']}; next: servegym fit-cost-model --steps {data['written']}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
