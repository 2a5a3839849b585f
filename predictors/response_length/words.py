"""From text to words, and from words to hashed n-grams: a tokenizer that needs no vocabulary."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_WORD = re.compile(r"[^\W\d_]+|\d|[^\w\s]")
_SHORTEST, _LONGEST, _MOST_GRAMS = 3, 5, 24
_FIRST_IDEOGRAPH = "\u2e80"  # scripts from here on write words without blanks between them


def words_of(text: str) -> list[str]:
    """Words, single digits, punctuation marks and single ideographs, in lower case."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        if not word.isascii() and max(word) >= _FIRST_IDEOGRAPH:
            found += word
        else:
            found.append(sys.intern(word))
    return found


def shortened(words: list[str], first: int, last: int) -> list[str]:
    """The words, of too many those at the start and the end."""
    return words if len(words) <= first + last else words[:first] + words[-last:]


def grams_of(word: str) -> list[str]:
    """The word and its parts of 3 to 5 letters, with marks at its ends, each once."""
    marked = f"<{word}>"
    parts = [marked]
    for size in range(_SHORTEST, _LONGEST + 1):
        parts += [marked[i : i + size] for i in range(len(marked) - size + 1)]
    return list(dict.fromkeys(parts))[:_MOST_GRAMS]


@lru_cache(maxsize=200_000)
def rows_of(word: str, rows: int) -> Ints:
    """Rows of an embedding table that make up a word, one a part.

    A word is the mean of the embeddings of its parts (Bojanowski et al., TACL 2017), so that no
    word is unknown; parts that share a row are told apart by the others.

    Args:
        word: The word.
        rows: Size of the table.
    """
    return np.array([zlib.crc32(part.encode()) % rows for part in grams_of(word)], np.int64)


def bags(words: Sequence[str], rows: int) -> tuple[Ints, Ints]:
    """Rows of an embedding table for some words, one after the other, and where each starts."""
    parts = [rows_of(word, rows) for word in words]
    sizes = [len(part) for part in parts]
    return np.concatenate(parts), np.cumsum([0, *sizes[:-1]], dtype=np.int64)
