"""The one error that reading, checking or building a trace can raise."""

from __future__ import annotations

from pathlib import Path


class TraceError(ValueError):
    """A trace cannot be used; the message names the file, line, column and the mend.

    Attributes:
        problem: What is wrong, as a sentence without a full stop.
        mend: What the user can do about it.
        path: The file (or another name of the source), None for a table built in memory.
        line: Line of the file counted from 1 as an editor shows it, None where it has no meaning.
        column: Name of the column, None where the fault is not in one column.
    """

    def __init__(
        self,
        problem: str,
        *,
        mend: str,
        path: str | Path | None = None,
        line: int | None = None,
        column: str | None = None,
    ) -> None:
        """Compose the message from its parts."""
        self.problem, self.mend = problem, mend
        self.path, self.line, self.column = path, line, column
        place = [
            str(path) if path is not None else "",
            f"line {line}" if line is not None else "",
            f"column {column!r}" if column is not None else "",
        ]
        where = ", ".join(part for part in place if part)
        super().__init__(f"{where}: {problem}. {mend}" if where else f"{problem}. {mend}")

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the keyword arguments when the error crosses a process boundary."""
        parts = (self.problem, self.mend, self.path, self.line, self.column)
        return _rebuild, (type(self), *parts)


class UnknownFormatError(TraceError):
    """A file is of no format that can be told by its content; its columns must be named."""


def _rebuild(
    kind: type[TraceError],
    problem: str,
    mend: str,
    path: str | Path | None,
    line: int | None,
    column: str | None,
) -> TraceError:
    return kind(problem, mend=mend, path=path, line=line, column=column)
