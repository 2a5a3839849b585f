"""Train a predictor of the length of an answer, from prompts, from a trace, or from a scenario."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from scripts.common import CommonArgs, show, table

if TYPE_CHECKING:
    from envs.run_folder import RunFolder
    from predictors.response_length import RunSettings, Settings

EXAMPLE = """servegym train-predictor --data prompts.parquet -o runs/text
  servegym train-predictor --data prompts.parquet --head quantile --no-hint -o runs/quantile
  servegym train-predictor --data trace.csv -o runs/metadata
  servegym train-predictor --scenario router-kv6k-rate9 -o runs/metadata
  servegym train-predictor --data prompts.parquet --model boosting -o runs/boosting
  servegym train-predictor --data prompts.parquet --model pretrained --pretrained distilbert/
  servegym train-predictor --resume runs/text
  tensorboard --logdir runs/text/tensorboard"""

FOLDER = Path("runs/train-predictor")
_QUICK = {"epochs": 1, "width": 32, "layers": 1, "first_words": 8, "last_words": 16}
_QUICK_ROWS = 300
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Args(CommonArgs):
    """Options of `servegym train-predictor`."""

    data: Path | None = None
    """Prompts with their answers or the answers' lengths (Parquet, CSV or JSON lines with the
    columns prompt, response or response_tokens, task, source), or a trace without texts."""
    scenario: str | None = None
    """Instead of a file, a scenario that draws requests: a preset or a YAML file."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """hashed (a small transformer, the default for prompts), pretrained (a backbone from disk),
    metadata (no text; the default for anything else), or one without gradients: majority,
    task_mean, forest, boosting, boosting_text, tfidf."""
    head: Literal["ordinal", "quantile", "classifier", "ranking"] | None = None
    """What is learned: hazards of fine bins, quantiles of log length, buckets, or the order;
    ordinal unless given."""
    buckets: Literal["five", "paper_unequal", "paper_equal", "paper_rl", "s3"] | None = None
    """Buckets of a classifier; five unless given."""
    no_hint: bool = False
    """Do not tell the task to a text predictor or a tree."""
    pretrained: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Weights of --model pretrained, on disk; nothing is downloaded."""
    split: Literal["related", "prompt"] = "related"
    """What may not be divided between training and test: prompts that belong together (equal ones,
    translations of a sentence, the same examples), or equal prompts only."""
    split_seed: int = 0
    """Seed of the split."""
    max_per_task: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Rows of a task, at most."""
    leave_out: Annotated[str | None, tyro.conf.arg(metavar="TASK")] = None
    """Task that is kept out of training."""
    epochs: int | None = None
    """Passes over the examples, at most, instead of the model's default."""
    settings: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """YAML file of further settings, such as width or learning_rate (docs/predictors.md)."""
    seed: int | None = None
    """Seed of weights, order and dropout; 0 unless given."""
    quick: bool = False
    """A short run on few rows, to see that everything works."""
    resume: Path | None = None
    """Run to go on with, from its last epoch; no other option goes with it."""


def main(args: Args) -> int:
    """Run the command."""
    from predictors.response_length import KINDS

    if args.resume is not None:
        return _resume(args)
    model = args.model or _default_model(args)
    if model in KINDS:
        return _fit(args, model)
    from envs.run_folder import RunFolder
    from predictors.response_length import RunSettings

    settings = _settings(args, model)
    parts, note = load(args)
    run = RunFolder(args.output or FOLDER)
    run.make()
    config = RunSettings(
        settings=settings,
        data=note,
        path=None if args.data is None else str(args.data),
        scenario=args.scenario,
        pretrained=None if args.pretrained is None else str(args.pretrained),
    )
    config.write(run.folder)
    return _learn(args, config, parts, run, resume=False)


def load(args: Any) -> tuple[Any, Any]:
    """Examples and what they are, of a file or a scenario, by the options of the command.

    Raises:
        ValueError: Neither is named, or both; or the file cannot be used.
    """
    from predictors.response_length import draw_examples, read_examples

    if (args.data is None) == (args.scenario is None):
        raise ValueError("give --data FILE, with prompts or a trace, or --scenario NAME")
    if args.scenario is not None:
        from envs.scenarios import load_scenario

        return draw_examples(load_scenario(args.scenario))
    rows = args.max_per_task
    return read_examples(
        args.data,
        grouping=args.split,
        split_seed=args.split_seed,
        most_per_task=_QUICK_ROWS if getattr(args, "quick", False) and _reads_text(args) else rows,
        left_out=getattr(args, "leave_out", None),
    )


def _reads_text(args: Any) -> bool:
    from envs.workloads.prompts import has_prompts

    return args.data is not None and has_prompts(args.data)


def _default_model(args: Args) -> str:
    if args.pretrained is not None:
        return "pretrained"
    return "hashed" if _reads_text(args) else "metadata"


def _settings(args: Args, model: str) -> Settings:
    from envs.scenarios.errors import did_you_mean
    from envs.scenarios.strict import validated
    from envs.scenarios.yaml_file import read_yaml
    from predictors.response_length import DEFAULTS, KINDS, Settings

    if model not in DEFAULTS:
        raise ValueError(f"--model: no {model!r}; {did_you_mean(model, [*DEFAULTS, *KINDS])}")
    if (model == "pretrained") != (args.pretrained is not None):
        raise ValueError("--model pretrained and --pretrained FOLDER go together")
    values: dict[str, Any] = {"encoder": model, **DEFAULTS[model]}
    if args.quick:
        values |= _QUICK
    if args.settings is not None:
        values |= read_yaml(args.settings)
    asked = {name: getattr(args, name) for name in ("head", "buckets", "epochs", "seed")}
    values |= {name: value for name, value in asked.items() if value is not None}
    if args.buckets is not None and values.get("head") != "classifier":
        raise ValueError("--buckets are those of a classifier: add --head classifier")
    if args.no_hint:
        values["hint"] = False
    return validated(Settings, values, str(args.settings or "command line"))


def _resume(args: Args) -> int:
    from envs.run_folder import RunFolder
    from predictors.response_length import RunSettings

    assert args.resume is not None
    free = {"resume", "json", "debug"}
    names = [f.name for f in fields(args) if f.name not in free]
    given = [n for n in names if getattr(args, n) != getattr(Args(), n)]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"--resume keeps the settings of the run: leave out {flags}")
    config = RunSettings.read(args.resume)
    from dataclasses import replace

    asked = replace(
        args,
        data=None if config.path is None else Path(config.path),
        scenario=config.scenario,
        split=config.data.grouping or "related",
        split_seed=config.data.split_seed,
        max_per_task=config.data.most_per_task,
        leave_out=config.data.left_out,
    )
    parts, note = load(asked)
    if note != config.data:
        raise ValueError(f"{config.path} is not the file that {args.resume} was trained on")
    return _learn(args, config, parts, RunFolder(args.resume), resume=True)


def _learn(args: Args, config: RunSettings, parts: Any, run: RunFolder, *, resume: bool) -> int:
    from predictors.response_length import batches_of, read_backbone, train
    from scripts.experiments.machine import command_line, machine
    from scripts.experiments.progress import progress, say
    from scripts.training import asked_to_stop

    backbone = None if config.pretrained is None else read_backbone(Path(config.pretrained))
    settings = config.settings
    say(f"{config.data.train} examples to learn from; files in {run.folder}")
    total = settings.epochs * batches_of(settings, len(parts["train"]))
    with asked_to_stop() as stop, progress("batches", total) as advance:
        outcome = train(
            config,
            parts["train"],
            parts["validation"],
            run,
            resume=resume,
            backbone=backbone,
            about={"command": command_line(), "machine": machine()},
            advance=advance,
            should_stop=stop.is_set,
        )
    if outcome.interrupted:
        say(f"stopped after {outcome.epochs} epochs; go on with: --resume {run.folder}")
        return _INTERRUPTED
    data = {
        "folder": run.folder,
        "epochs": outcome.epochs,
        "best_epoch": outcome.best_epoch,
        "seconds": outcome.seconds,
        "validation": outcome.validation,
    }
    title = (
        f"{outcome.epochs} epochs in {outcome.seconds:.0f} s, best after {outcome.best_epoch}; "
        f"on {len(parts['validation'])} validation examples:"
    )
    show(args, data, f"{title}\n\n{_metrics(outcome.validation)}\n\n{_next(run.folder, config)}")
    return 0


def _fit(args: Args, kind: Any) -> int:
    import time

    from envs.run_folder import RunFolder
    from predictors.response_length import Recipe, fit, scores

    for name in ("head", "epochs", "settings", "pretrained"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} is for models with gradients, not for {kind}")
    parts, note = load(args)
    recipe = Recipe(
        kind=kind,
        hint=not args.no_hint,
        buckets=args.buckets or "five",
        seed=args.seed or 0,
        data=note,
    )
    start = time.perf_counter()
    found = fit(recipe, parts["train"], parts["validation"])
    seconds = time.perf_counter() - start
    run = RunFolder(args.output or FOLDER)
    run.make()
    found.save(run.folder)
    run.checkpoints.rmdir()
    values = scores(found.predict(parts["validation"]), parts["validation"])
    data = {"folder": run.folder, "seconds": seconds, "validation": values}
    title = f"{seconds:.0f} s; on {len(parts['validation'])} validation examples:"
    show(args, data, f"{title}\n\n{_metrics(values)}\n\nfiles in {run.folder}")
    return 0


def _metrics(values: dict[str, float]) -> str:
    from predictors.response_length import HEADINGS
    from scripts.experiments.metrics import number

    rows = [[HEADINGS[key], number(value)] for key, value in values.items() if key in HEADINGS]
    return table([["metric", "value"], *rows])


def _next(folder: Path, config: RunSettings) -> str:
    note = config.data
    words = ["servegym evaluate-predictor --predictors", str(folder)]
    words += ["--data", config.path] if config.path else ["--scenario", config.scenario or ""]
    if note.grouping == "prompt":
        words.append("--split prompt")
    if note.split_seed:
        words.append(f"--split-seed {note.split_seed}")
    if note.most_per_task is not None:
        words.append(f"--max-per-task {note.most_per_task}")
    return (
        f"curves: tensorboard --logdir {folder}/tensorboard\n"
        f"on examples of its own: {' '.join(words)}"
    )


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
