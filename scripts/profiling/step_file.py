"""The file of timed steps, one row each as soon as it is known, and the notes beside it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.hardware.fitting.steps import KEY, REQUIRED
from scripts.profiling.clock import Timing
from scripts.profiling.grid import Point

EXTRA = ("source", "licence", "p10_s", "p90_s", "repeats", "layers_timed", "history_tokens")
"""Columns beyond those that a fit needs."""

Cell = tuple[float, float, float, float]


@dataclass(frozen=True)
class StepFile:
    """A CSV of steps of one (model, GPU), and `<name>.csv.json`: what they were timed with."""

    path: Path

    @property
    def notes(self) -> Path:
        """The file beside it."""
        return self.path.with_name(f"{self.path.name}.json")

    def layers_timed(self) -> int:
        """Give the number of layers with which the file began; 0 where there is none."""
        try:
            return int(
                json.loads(self.notes.read_text(encoding="utf-8"))["identity"]["layers_timed"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def claim(self, identity: dict[str, Any], overwrite: bool) -> None:
        """See to it that what the file holds was timed in the same way, and start it if absent.

        Args:
            identity: Everything that can change a time.
            overwrite: Whether other rows may be thrown away.

        Raises:
            ValueError: It was timed in another way, or nobody knows in which; or a file would be
                replaced that is not ours.
        """
        # `--overwrite` is for our files; the user's own may have such a name by a slip.
        if self.notes.exists() and not self.layers_timed():
            raise ValueError(
                f"{self.notes} would take the notes on how steps are timed, but holds something "
                "else: give another file with -o"
            )
        if overwrite and self.path.exists() and not self._is_ours():
            raise ValueError(f"{self.path} holds no timed steps: give another file with -o")
        if overwrite:
            self.path.unlink(missing_ok=True)
            self.notes.unlink(missing_ok=True)
        if self.path.exists():
            mend = "give another file with -o, or --overwrite to replace it"
            try:
                old = json.loads(self.notes.read_text(encoding="utf-8"))["identity"]
            except (OSError, ValueError, KeyError, TypeError):
                raise ValueError(f"{self.path}: nobody knows how it was timed; {mend}") from None
            differing = [key for key in identity if old.get(key) != identity[key]]
            if differing:
                raise ValueError(
                    f"{self.path} was timed with another {', '.join(differing)}; {mend}"
                )
            self._drop_torn_line()
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.note({"identity": identity})
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow([*REQUIRED, *EXTRA])

    def done(self, points: Iterable[Point]) -> set[Point]:
        """Give those of the points that the file holds."""
        with self.path.open(newline="", encoding="utf-8") as file:
            held = {
                (
                    float(row["decode_seqs"]),
                    float(row["context_tokens"]),
                    float(row["prefill_tokens"]),
                    float(row["attention_work"]),
                )
                for row in csv.DictReader(file)
            }
        return {point for point in points if _cell(point) in held}

    def add(self, identity: dict[str, Any], point: Point, timing: Timing, source: str) -> None:
        """Write a row at once."""
        row = {name: identity[name] for name in KEY}
        row |= {
            "decode_seqs": point.decode_seqs,
            "context_tokens": point.context_tokens,
            "prefill_tokens": point.chunk,
            "attention_work": f"{point.attention_work:.0f}",
            "seconds": f"{timing.median_s:.6g}",
            "source": source,
            "licence": "own measurement",
            "p10_s": f"{timing.p10_s:.6g}",
            "p90_s": f"{timing.p90_s:.6g}",
            "repeats": timing.repeats,
            "layers_timed": identity["layers_timed"],
            "history_tokens": point.history,
        }
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, [*REQUIRED, *EXTRA], lineterminator="\n").writerow(row)

    def note(self, more: dict[str, Any]) -> None:
        """Add to the notes; what is there stays unless it is named again."""
        held: dict[str, Any] = {}
        if self.notes.exists():
            held = json.loads(self.notes.read_text(encoding="utf-8"))
        text = json.dumps(held | more, indent=2)
        draft = self.notes.with_name(f"{self.notes.name}.part")
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(self.notes)

    def _is_ours(self) -> bool:
        """Whether the file has our columns, or nothing at all."""
        with self.path.open("rb") as file:
            line = file.readline(1_000).strip()
        return line in (b"", ",".join([*REQUIRED, *EXTRA]).encode())

    def _drop_torn_line(self) -> None:
        """Remove a last line that a killed process left unfinished."""
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            self.path.write_bytes(data[: data.rfind(b"\n") + 1])


def _cell(point: Point) -> Cell:
    return (
        float(point.decode_seqs),
        float(point.context_tokens),
        float(point.chunk),
        float(point.attention_work),
    )
