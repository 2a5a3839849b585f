"""A small quantile network for all series: DLinear with seasonal inputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .interface import DAY_S, LEVELS, WEEK_S, Floats, Forecaster, check, root, squared
from .series import Traffic

_VERSION = 1
_WEIGHTS, _ABOUT = "model.safetensors", "model.json"
_MOVING = 9


@dataclass(frozen=True)
class Settings:
    """What a network is made with.

    Attributes:
        bin_s: Width of a bin, seconds.
        horizon: Bins ahead that it forecasts.
        levels: Quantiles that it forecasts; others between them are interpolated.
        lookback: Last bins that it sees.
        hidden: Width of the hidden layer beside the linear ones.
        epochs: Rounds through the windows of a history.
        batch: Windows of a step.
        rate: Highest learning rate (Adam, cosine to 0).
        seed: Seed of weights and order.
    """

    bin_s: float = 900.0
    horizon: int = 16
    levels: tuple[float, ...] = LEVELS
    lookback: int = 96
    hidden: int = 64
    epochs: int = 12
    batch: int = 512
    rate: float = 2e-3
    seed: int = 0


class _DLinear(nn.Module):
    """Linear maps of trend and rest (Zeng et al., AAAI 2023) and seasons, and one hidden layer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        horizon, out = settings.horizon, settings.horizon * len(settings.levels)
        self.lookback, self.shape = settings.lookback, (horizon, len(settings.levels))
        self.trend, self.rest = (nn.Linear(settings.lookback, out) for _ in range(2))
        self.seasons = nn.Linear(2 * horizon, out)
        last = nn.Linear(settings.hidden, out)
        for layer in (self.trend, self.rest, self.seasons, last):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        first = nn.Linear(settings.lookback + 2 * horizon, settings.hidden)
        self.more = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """Quantiles (n, horizon, levels) of inputs (n, lookback + 2 horizon)."""
        recent, seasons = x[:, : self.lookback], x[:, self.lookback :]
        padded = nn.functional.pad(recent[:, None], (_MOVING // 2, _MOVING // 2), "replicate")
        trend = nn.functional.avg_pool1d(padded, _MOVING, 1)[:, 0]
        out = self.trend(trend) + self.rest(recent - trend) + self.seasons(seasons) + self.more(x)
        # What it was at this time of the week is where it starts from.
        base = seasons[:, -self.shape[0] :, None]
        return base + out.view(-1, *self.shape)


class QuantileNetwork(Forecaster):
    """Quantiles from the last day, and what followed this time a day and a week ago.

    One network for all series, each divided by the mean of its last week (square roots), trained on
    every window of the history by the pinball loss. The same seed and history give the same
    weights on one machine.

    Args:
        settings: Sizes and training.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        check(self.settings.horizon, self.settings.levels)
        self._network: _DLinear | None = None

    def fit(self, history: Traffic) -> None:
        """See the base class."""
        s = self.settings
        self._check(history)
        y = root(history.values)
        first = max(history.bins_of(WEEK_S), s.lookback)
        if first + s.horizon >= history.bins:
            need = (first + s.horizon + 1) * s.bin_s / DAY_S
            raise ValueError(
                f"a history of {history.bins} bins is too short to train on; give more than "
                f"{need:.1f} days"
            )
        origins = np.arange(first, history.bins - s.horizon + 1)
        scale = _scales(y, origins, history.bins_of(WEEK_S))
        inputs = np.stack([self._inputs(y, history, o) for o in origins.tolist()], axis=1)
        targets = np.stack([y[:, o : o + s.horizon] for o in origins], axis=1)
        x = torch.from_numpy((inputs / scale[:, :, None]).reshape(-1, inputs.shape[2])).float()
        z = torch.from_numpy((targets / scale[:, :, None]).reshape(-1, s.horizon)).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(s.seed)
            network = _DLinear(s)
            self._train(network, x, z)
        self._network = network.eval()

    def forecast(self, history: Traffic, horizon: int, levels: Sequence[float] = LEVELS) -> Floats:
        """See the base class."""
        found, s = check(horizon, levels), self.settings
        if horizon > s.horizon:
            raise ValueError(f"horizon is {horizon}; this network forecasts {s.horizon} bins")
        if not s.levels[0] <= found[0] <= found[-1] <= s.levels[-1]:
            raise ValueError(f"levels are {tuple(levels)}; this network knows {s.levels}")
        if self._network is None:
            self.fit(history)
        assert self._network is not None  # fit made it
        self._check(history)
        y = root(history.values)
        now = np.array([history.bins])
        scale = _scales(y, now, history.bins_of(WEEK_S))
        inputs = torch.from_numpy(self._inputs(y, history, history.bins) / scale).float()
        with torch.no_grad():
            out = self._network(inputs).sort(dim=2).values.numpy().astype(np.float64)
        paths = squared(out[:, :horizon] * scale[:, :, None])
        below = np.clip(np.searchsorted(s.levels, found, side="right") - 1, 0, len(s.levels) - 2)
        low, high = (np.asarray(s.levels)[below + i] for i in (0, 1))
        share = (found - low) / (high - low)
        return paths[..., below] * (1.0 - share) + paths[..., below + 1] * share

    def save(self, folder: str | Path) -> Path:
        """Write weights (safetensors) and settings (JSON) into a folder.

        Raises:
            ValueError: It was never fitted.
        """
        if self._network is None:
            raise ValueError("there is nothing to save: fit the network first")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(self._network.state_dict()), str(folder / _WEIGHTS))
        about = {"kind": "traffic-dlinear", "version": _VERSION, "settings": asdict(self.settings)}
        (folder / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> QuantileNetwork:
        """Read what `save` wrote.

        Raises:
            ValueError: A file is absent, damaged, or of another kind or version.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            if (about["kind"], about["version"]) != ("traffic-dlinear", _VERSION):
                raise ValueError(f"kind {about['kind']!r}, version {about['version']!r}")
            settings = about["settings"] | {"levels": tuple(about["settings"]["levels"])}
            found = cls(Settings(**settings))
            network = _DLinear(found.settings)
            network.load_state_dict(load_file(str(folder / _WEIGHTS)))
        except Exception as error:
            raise ValueError(
                f"{folder}: no traffic network can be read ({error}); train it anew"
            ) from None
        found._network = network.eval()
        return found

    def _train(self, network: _DLinear, x: Tensor, z: Tensor) -> None:
        s = self.settings
        levels = torch.tensor(s.levels)
        adam = torch.optim.Adam(network.parameters(), lr=s.rate, weight_decay=1e-5)
        steps = s.epochs * -(-len(x) // s.batch)
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        for _ in range(s.epochs):
            for rows in torch.randperm(len(x)).split(s.batch):
                missed = z[rows, :, None] - network(x[rows])
                loss = torch.maximum(levels * missed, (levels - 1) * missed).mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
                slower.step()

    def _check(self, history: Traffic) -> None:
        s = self.settings
        if history.bin_s != s.bin_s:
            raise ValueError(f"bins of {history.bin_s:g} s; this network is for {s.bin_s:g} s")
        if history.bins < s.lookback:
            raise ValueError(f"a history of {history.bins} bins; give {s.lookback} or more")

    def _inputs(self, y: Floats, history: Traffic, now: int) -> Floats:
        """(series, lookback + 2 horizon): the last bins, and what followed a day and a week ago."""
        s = self.settings
        ahead = now + np.arange(s.horizon)
        day, week = history.bins_of(DAY_S), history.bins_of(WEEK_S)
        seasons = [ahead - day * ((ahead - now) // day + 1), ahead - week]
        if now < week:
            seasons[1] = seasons[0]
        columns = np.concatenate([np.arange(now - s.lookback, now), *seasons])
        return y[:, np.maximum(columns, 0)]


def _scales(y: Floats, origins: np.ndarray, week: int) -> Floats:
    """(series, origins) mean of the week before each, never 0."""
    total = np.concatenate([np.zeros((len(y), 1)), np.cumsum(y, axis=1)], axis=1)
    start = np.maximum(origins - week, 0)
    mean = (total[:, origins] - total[:, start]) / (origins - start)
    return np.maximum(mean, max(float(y.mean()) * 1e-3, 1e-9))
