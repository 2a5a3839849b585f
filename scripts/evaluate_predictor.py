"""Evaluate predictors of answer lengths on requests that they were not trained on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scripts.common import SeededArgs, show

EXAMPLE = """servegym evaluate-predictor --data prompts.parquet
  servegym evaluate-predictor --data prompts.parquet --predictors runs/text tfidf --hint both
  servegym evaluate-predictor --data prompts.parquet --predictors task_mean boosting --transfer
  servegym evaluate-predictor --scenario router-kv6k-rate9 --predictors metadata forest majority"""


@dataclass(frozen=True, kw_only=True)
class Args(SeededArgs):
    """Options of `servegym evaluate-predictor`."""

    data: Path | None = None
    """Prompts with their answers, or a trace, as for `servegym train-predictor`."""
    scenario: str | None = None
    """Instead of a file, a scenario that draws requests."""
    predictors: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Folders of trained predictors, those that come with the package (text, metadata), or models
    that are fitted here: majority, task_mean, forest, boosting, boosting_text, tfidf, and s3, the
    last on ten equal buckets without a hint. Without any, all that are fitted here and fit."""
    hint: Literal["yes", "no", "both"] = "yes"
    """Whether models that are fitted here are told the task."""
    buckets: Literal["five", "paper_unequal", "paper_equal", "paper_rl", "s3"] = "five"
    """Buckets whose accuracy is told."""
    split: Literal["related", "prompt"] = "related"
    """As for training; must be that of the predictors."""
    split_seed: int = 0
    """Likewise."""
    max_per_task: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Likewise."""
    transfer: bool = False
    """Leave each task out of training in turn and test on it alone; for models that are fitted
    here, and hashed, a transformer, which takes a while."""
    epochs: int = 3
    """Epochs of hashed in --transfer."""


def main(args: Args) -> int:
    """Run the command."""
    from scripts.experiments.predictor_scores import (
        evaluate,
        scores_frame,
        scores_text,
        transfer,
    )
    from scripts.experiments.store import Store

    if args.transfer:
        if args.data is None:
            raise ValueError("--transfer needs --data FILE with prompts of several tasks")
        rows, key = transfer(args), "tau"
    else:
        rows, key = evaluate(args), "pinball_tokens"
    frame = scores_frame(rows)
    if args.output is not None:
        store = Store(args.output)
        store.write_frame("scores.csv", frame)
        store.write_frame("scores.parquet", frame)
    show(args, {"scores": rows}, scores_text(rows, args.transfer, key))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Args)))
