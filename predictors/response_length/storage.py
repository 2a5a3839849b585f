"""The folder of a predictor: `predictor.json` and `predictor.safetensors`, nothing pickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from envs.run_folder import RunFolder, read_bytes, read_json, write_json
from predictors.response_length.distribution import LengthDistribution
from predictors.response_length.examples import Examples
from predictors.response_length.settings import DataNote
from predictors.tensors import format_tensors, parse_tensors

DESCRIPTION, WEIGHTS = "predictor.json", "predictor.safetensors"
FORMAT = 1
_SHIPPED = Path(__file__).parents[1] / "pretrained"


class Predictor(Protocol):
    """Anything that predicts the lengths of answers."""

    @property
    def data(self) -> DataNote:
        """What it was trained on."""

    @property
    def hint(self) -> bool:
        """Whether it is told the task."""

    @property
    def reads_text(self) -> bool:
        """Whether it needs prompts."""

    def predict(self, examples: Examples) -> LengthDistribution:
        """The distributions of the answers' lengths, one a request.

        Raises:
            ValueError: The examples lack what it reads.
        """

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""


def write_predictor(
    folder: Path, kind: str, about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Write the two files of a predictor.

    Args:
        folder: An existing folder.
        kind: What sort of predictor it is.
        about: Plain values from which it is built anew.
        tensors: Its numbers.
    """
    weights = format_tensors(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    (folder / WEIGHTS).write_bytes(weights)
    head = {"format": FORMAT, "kind": kind}
    write_json(folder / DESCRIPTION, head | dict(about) | {"weights_sha256": digest})


def read_description(folder: Path) -> dict[str, Any]:
    """The plain values of `predictor.json`, with `kind`.

    Raises:
        ValueError: It cannot be read, or is of another format.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ValueError(f"{folder} holds no predictor: {DESCRIPTION} is missing")
    about = read_json(path)
    if not isinstance(about, dict) or not isinstance(about.get("kind"), str):
        raise ValueError(f"{path} describes no predictor: it has no kind")
    if about.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is of another format than {FORMAT}: train it anew")
    return about


def read_tensors(folder: Path, about: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The numbers of a predictor.

    Raises:
        ValueError: The file cannot be read, or is not the one that `predictor.json` describes.
    """
    path = folder / WEIGHTS
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != about.get("weights_sha256"):
        raise ValueError(
            f"{path} is not the file that {folder / DESCRIPTION} describes (its SHA-256 differs): "
            "restore both from the same run"
        )
    return parse_tensors(data, path)


def shipped() -> list[str]:
    """Names of the trained predictors that come with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{DESCRIPTION}"))


def find_predictor(name_or_path: str | Path) -> Path:
    """Folder of a predictor.

    Args:
        name_or_path: One of `shipped()`, a predictor's folder, or that of a training run, of
            which it is the best.

    Raises:
        ValueError: There is none.
    """
    if str(name_or_path) in shipped():
        return _SHIPPED / str(name_or_path)
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise ValueError(
            f"no predictor {str(name_or_path)!r}: name a folder, or one of those that come with "
            f"the package: {', '.join(shipped()) or 'none'}"
        )
    if (folder / DESCRIPTION).is_file():
        return folder
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder} holds no predictor: {DESCRIPTION} is missing")
    return RunFolder(folder).model()
