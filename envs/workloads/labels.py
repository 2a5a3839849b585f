"""Text columns held as integer codes into a tuple of names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True, eq=False)
class Labels:
    """A text column: row i holds `names[codes[i]]`.

    Attributes:
        codes: (n,) int32, read-only.
        names: The distinct texts; a slice may leave some of them unused.
    """

    codes: npt.NDArray[np.int32]
    names: tuple[str, ...]

    @classmethod
    def encode(cls, values: Any, known: Sequence[str] = ()) -> Labels:
        """Encode texts; `known` names come first, the others in order of appearance.

        Raises:
            ValueError: A value is missing, not text, or holds a control character; the second
                argument of the error is its 0-based row.
        """
        if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
            values = values.array
        if isinstance(values, pd.Categorical):
            index = np.asarray(values.codes, np.int64)
            seen, order = np.unique(index, return_index=True)
            used = seen[np.argsort(order, kind="stable")]
            first = np.sort(order)
            found: list[Any] = [values.categories[c] if c >= 0 else None for c in used]
            rank = np.full(max(len(values.categories), 1) + 1, -1, np.int32)
            rank[used] = np.arange(len(used), dtype=np.int32)
            codes = rank[index]
        else:
            if not isinstance(values, (pd.Series, np.ndarray)):
                values = pd.Series(list(values), dtype=object)
            codes, uniques = pd.factorize(values, use_na_sentinel=False)
            found = list(uniques)
            first = np.zeros(len(found), np.int64)
            first[codes[::-1]] = np.arange(len(codes))[::-1]
        for row, name in zip(first, found, strict=True):
            if not isinstance(name, str):
                raise ValueError(f"the value {name!r} is not text", int(row))
            if not name.isprintable():
                raise ValueError(f"the value {name!r} holds a control character", int(row))
        place = {name: i for i, name in enumerate(known)}
        for name in found:
            place.setdefault(name, len(place))
        mapping = np.array([place[name] for name in found], np.int32)
        return cls(_frozen(mapping[codes].astype(np.int32)), tuple(place))

    @classmethod
    def constant(cls, name: str, n: int, known: Sequence[str] = ()) -> Labels:
        """The same text in all n rows."""
        names = tuple(known) if name in known else (*known, name)
        return cls(_frozen(np.full(n, names.index(name), np.int32)), names)

    def values(self) -> npt.NDArray[np.object_]:
        """The texts, (n,) objects."""
        return np.array(self.names, dtype=object)[self.codes]

    def followed_by(self, other: Labels) -> Labels:
        """The rows of both; names that no row here holds are left out, unless both share all.

        So the names of a long stream's parts do not pile up as they are joined.
        """
        if self.names == other.names:
            return Labels(_frozen(np.concatenate([self.codes, other.codes])), self.names)
        used, mine = np.unique(self.codes, return_inverse=True)
        place = {self.names[code]: i for i, code in enumerate(used)}
        theirs = [place.setdefault(name, len(place)) for name in other.names]
        codes = np.concatenate([mine, np.array(theirs, np.int64)[other.codes]])
        return Labels(_frozen(codes.astype(np.int32)), tuple(place))

    def to_pandas(self) -> pd.Categorical[str]:
        """The same column for pandas."""
        return pd.Categorical.from_codes(self.codes, categories=pd.Index(self.names))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.codes)

    def __getitem__(self, index: Any) -> Any:
        """The text of one row, or the Labels of a slice or index array."""
        chosen = self.codes[index]
        if np.ndim(chosen) == 0:
            return self.names[int(chosen)]
        return Labels(_frozen(chosen), self.names)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same texts, however coded."""
        if not isinstance(other, Labels) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Labels) else False
        place = {name: i for i, name in enumerate(other.names)}
        mapping = np.array([place.get(name, -1) for name in self.names], np.int32)
        return len(self) == 0 or bool((mapping[self.codes] == other.codes).all())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Short form."""
        return f"Labels({len(self)} rows, names={self.names[:6]}{'...' * (len(self.names) > 6)})"


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
