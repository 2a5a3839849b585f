"""The folder of a training run: where each file lies, and writing that leaves no half of one.

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
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from agents.settings import RunConfig, parse_config
from envs.scenarios.yaml_file import read_yaml
from envs.version import __version__

_PACKAGES = ("gymnasium", "numba", "numpy", "sb3-contrib", "stable-baselines3", "torch")


@dataclass(frozen=True)
class Run:
    """A training run on disk.

    Attributes:
        folder: Its folder.
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path, config: RunConfig) -> Run:
        """Start a run in a new or empty folder.

        Raises:
            ValueError: The folder has content.
        """
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f"{folder} is not empty: name another folder with -o, or continue the run "
                f"there with --resume {folder}"
            )
        run = cls(folder)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
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
    def checkpoints(self) -> Path:
        """Folder of the numbered checkpoints."""
        return self.folder / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard files."""
        return self.folder / "tensorboard"

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

    def last_checkpoint(self) -> Path:
        """The checkpoint with most steps.

        Raises:
            ValueError: There is none.
        """
        found = [p for p in self.checkpoints.glob("*") if p.name.isdigit() and p.is_dir()]
        if not found:
            raise ValueError(f"{self.folder} has no checkpoint to go on from: start a new run")
        return max(found, key=lambda path: int(path.name))

    def checkpoint(self, steps: int) -> Path:
        """Folder of the checkpoint after so many steps; names sort by number."""
        return self.checkpoints / f"{steps:010d}"

    def model(self) -> Path:
        """Folder of the policy to use: the best, else the final one, else the last checkpoint.

        Raises:
            ValueError: The run has no policy yet.
        """
        for folder in (self.folder / "best", self.folder / "final"):
            # Training may run, or have died, between moving the old one away and the new one in.
            for path in (folder, _beside(folder, "old")):
                if path.is_dir():
                    return path
        return self.last_checkpoint()

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

    def note_start(self, steps: int, about: Mapping[str, Any]) -> None:
        """Add a start to `metadata.yaml`.

        Args:
            steps: Steps done before.
            about: Plain values, such as the command and the machine.

        Raises:
            ValueError: The file is damaged.
        """
        path = self.folder / "metadata.yaml"
        starts: Any = []
        if path.is_file():
            starts = read_yaml(path).get("starts")
            if not isinstance(starts, list):
                raise ValueError(f"{path}: starts: must be a list; remove the file to go on")
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        start = {"date": now, "at_step": steps, **about, "versions": versions()}
        text = yaml.safe_dump({"starts": [*starts, start]}, sort_keys=False, allow_unicode=True)
        write_text(path, text)


def versions() -> dict[str, str]:
    """Versions of this project and of the packages that training depends on."""
    return {"servegym": __version__} | {name: metadata.version(name) for name in _PACKAGES}


def write_text(path: Path, text: str) -> None:
    """Write a file, or leave it as it was."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8", newline="")
    os.replace(beside, path)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file, or leave it as it was."""
    write_text(path, json.dumps(data, indent=2) + "\n")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` when all of it is written.

    Whenever the process dies, `folder` is there, or `recover` brings back what it was.
    """
    recover(folder)
    new, old = _beside(folder, "new"), _beside(folder, "old")
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Bring back a folder that `replacing` had moved away when the process died."""
    old = _beside(folder, "old")
    if old.is_dir() and not folder.exists():
        os.replace(old, folder)


def _beside(folder: Path, end: str) -> Path:
    return folder.with_name(f".{folder.name}.{end}")
