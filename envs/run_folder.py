"""The folder of a training run, whatever is trained, and writing that leaves no half of a file.

| in the folder | what |
|---|---|
| `metadata.yaml` | versions, machine, and the command of every start and resumption |
| `tensorboard/` | scalars, defined in docs/metrics.md |
| `checkpoints/N/` | state after N steps; `--resume` takes the last |
| `best/` | the model with the best validation score |
| `final/` | the model at the end |
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from envs.scenarios.yaml_file import read_yaml
from envs.version import __version__

_PACKAGES = ("gymnasium", "numba", "numpy", "sb3-contrib", "stable-baselines3", "torch")


@dataclass(frozen=True)
class RunFolder:
    """A training run on disk.

    Attributes:
        folder: Its folder.
    """

    folder: Path

    def make(self) -> None:
        """Make the folder.

        Raises:
            ValueError: It has content.
        """
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(
                f"{self.folder} is not empty: name another folder with -o, or continue the run "
                f"there with --resume {self.folder}"
            )
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoints(self) -> Path:
        """Folder of the numbered checkpoints."""
        return self.folder / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Folder of the TensorBoard files."""
        return self.folder / "tensorboard"

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
        """Folder of the model to use: the best, else the final one, else the last checkpoint.

        Raises:
            ValueError: The run has no model yet.
        """
        for folder in (self.folder / "best", self.folder / "final"):
            # Training may run, or have died, between moving the old one away and the new one in.
            for path in (folder, _beside(folder, "old")):
                if path.is_dir():
                    return path
        return self.last_checkpoint()

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
    found = {"servegym": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # each extra needs only some of them
            continue
    return found


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        ValueError: It can't be read or is no JSON.
    """
    try:
        return json.loads(read_bytes(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None


def read_bytes(path: Path) -> bytes:
    """Content of a file.

    Raises:
        ValueError: It can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None


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
