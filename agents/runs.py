"""The folder of an agent's training run: where each file lies.

| in RUN | what |
|---|---|
| `config.yaml` | everything that the outcome depends on (`agents.settings.RunConfig`) |
| `metadata.yaml` | versions, machine, and the command of every start and resumption |
| `tensorboard/` | scalars, defined in docs/metrics.md |
| `validation.csv` | one row an evaluation and validation episode |
| `checkpoints/N/` | after N steps: policy, optimiser, counters; `--resume` takes the last |
| `best/` | the policy with the best validation score, and that score |
| `final/` | the policy at the end |
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agents.settings import RunConfig, parse_config
from envs.run_folder import RunFolder, recover, write_text


@dataclass(frozen=True)
class Run(RunFolder):
    """A training run on disk.

    Attributes:
        folder: Its folder.
    """

    @classmethod
    def create(cls, folder: Path, config: RunConfig) -> Run:
        """Start a run in a new or empty folder.

        Raises:
            ValueError: The folder has content.
        """
        run = cls(folder)
        run.make()
        run.write_config(config)
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run that exists.

        Raises:
            ValueError: The folder is none of a run.
        """
        if not (folder / "config.yaml").is_file():
            raise ValueError(f"{folder} is no training run: it holds no config.yaml")
        return cls(folder)

    @property
    def validation(self) -> Path:
        """Table of the evaluations."""
        return self.folder / "validation.csv"

    def config(self) -> RunConfig:
        """The configuration."""
        return parse_config(self.folder / "config.yaml")

    def write_config(self, config: RunConfig) -> None:
        """Replace the configuration."""
        write_text(self.folder / "config.yaml", config.to_yaml())

    def go_back_to(self, steps: int, steps_of: Callable[[Path], int]) -> None:
        """Forget what was found after a checkpoint, from which training goes another way.

        Rows of `validation.csv`, and the best and final policy where they are later, are removed.

        Args:
            steps: Steps of the checkpoint.
            steps_of: Gives the steps of a policy's folder.
        """
        for folder in (self.folder / "best", self.folder / "final"):
            recover(folder)
            if folder.is_dir() and steps_of(folder) > steps:
                shutil.rmtree(folder)
        if self.validation.is_file():
            with self.validation.open(newline="", encoding="utf-8", errors="replace") as file:
                header, *rows = [row for row in csv.reader(file) if row] or [[]]
            text = io.StringIO(newline="")
            # A row that a crash cut short is later than any checkpoint.
            whole = [row for row in rows if len(row) == len(header) and row[0].isdecimal()]
            kept = [row for row in whole if int(row[0]) <= steps]
            csv.writer(text).writerows([header, *kept] if header else [])
            write_text(self.validation, text.getvalue())
