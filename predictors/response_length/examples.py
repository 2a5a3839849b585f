"""What a predictor sees of requests: a batch of texts, or of numbers and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from envs.workloads import RequestTable
from envs.workloads.prompts import Prompts

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]

HISTORY_DELAY_S = 60.0
"""Seconds after the arrival of a request from which its answer counts as history."""


@dataclass(frozen=True, eq=False)
class Examples:
    """A batch of n requests; what is unknown of all of them is None.

    Attributes:
        prompt_tokens: (n,) int64, 1 or more.
        application: (n,) texts, what the request is for; "" where unknown. It is the task hint of
            text predictors.
        text: (n,) prompts.
        history_count: (n,) earlier answers of the same tenant that are known by then; 0 = none.
        history_log_mean: (n,) mean natural logarithm of their tokens; 0 where there are none.
        output_tokens: (n,) int64, the truth, to learn from and to be judged by.
    """

    prompt_tokens: Ints
    application: Texts
    text: Texts | None = None
    history_count: Floats | None = None
    history_log_mean: Floats | None = None
    output_tokens: Ints | None = None

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.prompt_tokens)

    @classmethod
    def from_prompts(cls, prompts: Prompts) -> Examples:
        """Prompts, with their tasks as applications."""
        return cls(
            prompts.prompt_tokens,
            prompts.task,
            prompts.text,
            output_tokens=prompts.output_tokens,
        )

    @classmethod
    def from_table(cls, table: RequestTable, text: Texts | None = None) -> Examples:
        """Requests of a table, with the history of their tenants where it names some.

        Args:
            table: The requests.
            text: (n,) their prompts, where they are known.
        """
        count, log_mean = tenant_history(table)
        return cls(
            np.asarray(table.prompt_tokens),
            table.application.values(),
            text,
            count,
            log_mean,
            np.asarray(table.output_tokens),
        )

    def take(self, rows: Ints | slice) -> Examples:
        """Some of them."""
        return replace(self, **{k: v[rows] for k, v in self.__dict__.items() if v is not None})

    @classmethod
    def joined(cls, parts: Sequence[Examples]) -> Examples:
        """Several batches after one another; what one of them lacks, all lack."""
        columns: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            values = [getattr(part, name) for part in parts]
            absent = any(value is None for value in values)
            columns[name] = None if absent else np.concatenate(values)
        return cls(**columns)

    def truth(self) -> Ints:
        """(n,) tokens of the answers.

        Raises:
            ValueError: They are not known.
        """
        if self.output_tokens is None:
            raise ValueError("these examples have no output_tokens to learn from")
        return self.output_tokens

    def history(self) -> tuple[Floats, Floats]:
        """`history_count` and `history_log_mean`, zeros where there are none."""
        none = np.zeros(len(self))
        if self.history_count is None or self.history_log_mean is None:
            return none, none
        return self.history_count, self.history_log_mean


def tenant_history(table: RequestTable, delay_s: float = HISTORY_DELAY_S) -> tuple[Floats, Floats]:
    """What is known of each tenant's earlier answers when a request arrives.

    Only answers to requests count that arrived at least `delay_s` before, as an answer is not
    known before it ends. A fixed delay does not follow the load: under overload, answers are known
    later than that.

    Args:
        table: The requests, sorted by arrival.
        delay_s: Seconds after which an answer counts.

    Returns:
        (n,) number of such answers, and the mean natural logarithm of their tokens (0 without
        any); both 0 where the table names no tenants.
    """
    n = len(table)
    count, log_mean = np.zeros(n), np.zeros(n)
    if "tenant" not in table.given:
        return count, log_mean
    codes, arrival = np.asarray(table.tenant.codes), np.asarray(table.arrival_s)
    logs = np.log(np.asarray(table.output_tokens, np.float64))
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    for rows in np.split(order, starts[1:]):
        known = np.searchsorted(arrival[rows], arrival[rows] - delay_s, side="right")
        # A request never knows of itself, even without a delay.
        known = np.minimum(known, np.arange(len(rows)))
        sums = np.concatenate([[0.0], np.cumsum(logs[rows])])
        count[rows] = known
        log_mean[rows] = sums[known] / np.maximum(known, 1)
    return count, log_mean


def texts_of(examples: Examples) -> list[str]:
    """The prompts.

    Raises:
        ValueError: The examples have none.
    """
    if examples.text is None:
        raise ValueError(
            "a text predictor needs prompts, and these requests have none: "
            "take a metadata predictor"
        )
    return list(examples.text)


def hint_of(task: str) -> str:
    """The paper's hint (arXiv:2408.13510 A.4.2); none for an unknown task."""
    return f"This is a {task.replace('_', ' ')} task." if task else ""
