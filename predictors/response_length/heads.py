"""Heads: from a vector a request to a loss, and to a distribution of the answer's length."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from predictors.response_length.buckets import bucket_of, fine_edges, inner_shapes
from predictors.response_length.distribution import (
    LengthDistribution,
    from_quantiles,
    from_table,
)
from predictors.response_length.settings import Learned, Settings

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEVELS = (0.01, 0.05, *(i / 20 for i in range(2, 19)), 0.95, 0.99)
"""Levels of the quantile head."""
_STEPS = 32


class LengthHead(nn.Module):
    """The common base.

    `start` is called once before training and `settle` after each epoch; what they learn are
    buffers, which are stored with the weights.

    Attributes:
        settles: Whether `settle` does anything.
    """

    settles = False

    def start(self, output_tokens: Ints) -> None:
        """Take from the training lengths what the head needs before the first step."""

    def settle(self, outputs: torch.Tensor, output_tokens: Ints) -> None:
        """Take what it needs to turn outputs into lengths, from outputs on training examples."""

    def loss(self, outputs: torch.Tensor, output_tokens: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch: (n, k) outputs against (n,) true lengths."""
        raise NotImplementedError

    def distribution(self, outputs: torch.Tensor) -> LengthDistribution:
        """The distributions that (n, k) outputs stand for."""
        raise NotImplementedError

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, k) outputs of (n, units) vectors."""
        raise NotImplementedError


class OrdinalHead(LengthHead):
    """A hazard for each of many fine bins: the chance to end there, having come so far.

    The loss is the negative log-likelihood of the bin (logistic hazard: Gensheimer and
    Narasimhan, PeerJ 2019). The distribution function rises by construction, and what remains
    after g tokens follows from the hazards beyond g.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self._edges = fine_edges()
        self.network = _network(units, len(self._edges) - 1)

    def start(self, output_tokens: Ints) -> None:
        """Begin at the hazards of all answers together."""
        which = bucket_of(output_tokens, self._edges)
        ends = np.bincount(np.minimum(which, len(self._edges) - 1), minlength=len(self._edges))
        alive = ends[::-1].cumsum()[::-1]
        hazard = (ends[:-1] + 0.5) / (alive[:-1] + 1.0)
        _set_bias(self.network, np.log(hazard / (1.0 - hazard)))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, bins - 1) logits of the hazards; the last bin ends for certain."""
        outputs: torch.Tensor = self.network(hidden)
        return outputs

    def loss(self, outputs: torch.Tensor, output_tokens: torch.Tensor) -> torch.Tensor:
        """Mean negative log-likelihood of the bin, nats."""
        edges = torch.from_numpy(self._edges)
        which = torch.searchsorted(edges, output_tokens.to(edges.dtype), right=False)[:, None]
        bins = torch.arange(outputs.shape[1])
        each = functional.binary_cross_entropy_with_logits(
            outputs, (bins == which).to(outputs.dtype), reduction="none"
        )
        return (each * (bins <= which)).sum(dim=1).mean()

    def distribution(self, outputs: torch.Tensor) -> LengthDistribution:
        """By the probabilities at the edges of the bins."""
        alive = torch.exp(functional.logsigmoid(-outputs.double()).cumsum(dim=1))
        below = (1.0 - alive).numpy()
        return from_table(self._edges, np.concatenate([below, np.ones((len(below), 1))], axis=1))


class QuantileHead(LengthHead):
    """Quantiles of log length, which rise by construction: a first one and positive steps.

    The loss is the pinball loss (Koenker and Bassett, Econometrica 1978) of the natural
    logarithm, mean over `LEVELS`.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.network = _network(units, len(LEVELS))

    def start(self, output_tokens: Ints) -> None:
        """Begin at the quantiles of all answers together."""
        logs = np.quantile(np.log(output_tokens), LEVELS)
        steps = np.maximum(np.diff(logs), 1e-2)
        # The inverse of softplus.
        _set_bias(self.network, np.concatenate([logs[:1], np.log(np.expm1(steps))]))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, levels) quantiles of the natural logarithm of the length."""
        raw = self.network(hidden)
        steps = functional.softplus(raw[:, 1:])
        return torch.cat([raw[:, :1], raw[:, :1] + steps.cumsum(dim=1)], dim=1)

    def loss(self, outputs: torch.Tensor, output_tokens: torch.Tensor) -> torch.Tensor:
        """Mean pinball loss of log length."""
        miss = output_tokens.to(outputs.dtype).log()[:, None] - outputs
        levels = torch.tensor(LEVELS, dtype=outputs.dtype)
        return torch.maximum(levels * miss, (levels - 1.0) * miss).mean()

    def distribution(self, outputs: torch.Tensor) -> LengthDistribution:
        """By the quantiles."""
        return from_quantiles(LEVELS, np.exp(outputs.double().numpy()))


class ClassifierHead(LengthHead):
    """Probabilities of buckets, as the paper's; inside a bucket, answers spread as in training."""

    shapes: torch.Tensor

    def __init__(self, units: int, edges: tuple[int, ...]) -> None:
        super().__init__()
        self._edges, self._fine = edges, fine_edges()
        self.network = _network(units, len(edges) + 1)
        self.register_buffer("shapes", torch.ones(len(edges) + 1, len(self._fine)).double())

    def start(self, output_tokens: Ints) -> None:
        """Begin at the shares of the buckets, and learn the spread inside them."""
        counts = np.bincount(bucket_of(output_tokens, self._edges), minlength=len(self._edges) + 1)
        _set_bias(self.network, np.log((counts + 0.5) / counts.sum()))
        self.shapes.copy_(torch.from_numpy(inner_shapes(output_tokens, self._edges, self._fine)))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, buckets) logits."""
        outputs: torch.Tensor = self.network(hidden)
        return outputs

    def loss(self, outputs: torch.Tensor, output_tokens: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy, nats."""
        which = torch.searchsorted(torch.tensor(self._edges), output_tokens, right=False)
        return functional.cross_entropy(outputs, which)

    def distribution(self, outputs: torch.Tensor) -> LengthDistribution:
        """By the buckets' probabilities and the spread inside them."""
        shares = torch.softmax(outputs.double(), dim=1)
        return from_table(self._fine, (shares @ self.shapes).numpy())


class RankingHead(LengthHead):
    """A score that sorts a list of requests by length, as vllm-ltr's (Fu et al., NeurIPS 2024).

    The loss is that of ListMLE (Xia et al., ICML 2008): the negative log-likelihood of the true
    order, longest first, of the batch. A score says nothing of tokens; what lengths stand behind
    it is taken from the training examples of like score.
    """

    settles = True
    scores: torch.Tensor
    below: torch.Tensor

    def __init__(self, units: int) -> None:
        super().__init__()
        self._fine = fine_edges()
        self.network = _network(units, 1)
        self.register_buffer("scores", torch.arange(_STEPS).double())
        self.register_buffer("below", torch.ones(_STEPS, len(self._fine)).double())

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, 1) scores; longer is larger."""
        outputs: torch.Tensor = self.network(hidden)
        return outputs

    def loss(self, outputs: torch.Tensor, output_tokens: torch.Tensor) -> torch.Tensor:
        """Mean negative log-likelihood of each place of the true order, nats."""
        scores = outputs[torch.argsort(output_tokens, descending=True, stable=True), 0]
        beaten = torch.flip(torch.logcumsumexp(torch.flip(scores, (0,)), dim=0), (0,))
        return (beaten - scores).mean()

    def settle(self, outputs: torch.Tensor, output_tokens: Ints) -> None:
        """Learn the lengths behind the scores: a table by score, in which more is never shorter."""
        scores = outputs[:, 0].double().numpy()
        order = np.argsort(scores, kind="stable")
        steps = np.array_split(order, _STEPS)
        middle = [scores[step].mean() if len(step) else 0.0 for step in steps]
        table = []
        for step in steps:
            inside = np.sort(output_tokens[step])
            count = np.searchsorted(inside, self._fine, side="right")
            table.append(count / max(len(inside), 1))
        below = np.minimum.accumulate(np.array(table), axis=0)
        below[:, -1] = 1.0
        rising = np.maximum.accumulate(np.array(middle) - 1e-6 * np.arange(_STEPS))
        self.scores.copy_(torch.from_numpy(rising + 1e-6 * np.arange(_STEPS)))
        self.below.copy_(torch.from_numpy(below))

    def distribution(self, outputs: torch.Tensor) -> LengthDistribution:
        """By the table, between two of its scores in proportion."""
        scores, known = outputs[:, 0].double().numpy(), self.scores.numpy()
        right = np.clip(np.searchsorted(known, scores), 1, _STEPS - 1)
        share = np.clip((scores - known[right - 1]) / (known[right] - known[right - 1]), 0.0, 1.0)
        table = self.below.numpy()
        below = (1.0 - share)[:, None] * table[right - 1] + share[:, None] * table[right]
        return from_table(self._fine, below)


def build_head(settings: Settings, learned: Learned, units: int) -> LengthHead:
    """An untrained head."""
    if settings.head == "classifier":
        return ClassifierHead(units, tuple(learned.edges))
    kinds: dict[str, Any] = {
        "ordinal": OrdinalHead,
        "quantile": QuantileHead,
        "ranking": RankingHead,
    }
    head: LengthHead = kinds[settings.head](units)
    return head


def _network(units: int, outputs: int) -> nn.Sequential:
    hidden = max(32, units // 2)
    return nn.Sequential(nn.Linear(units, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def _set_bias(network: nn.Sequential, values: Floats) -> None:
    last = network[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.copy_(torch.from_numpy(values))
