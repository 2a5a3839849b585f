"""Workloads of whole weeks for fleets of several models and regions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from envs.scenarios.strict import Strict

if TYPE_CHECKING:
    from envs.workloads import O365, RequestTable, ServeGenWeek

WEEK_S = 604_800.0


class _Week(Strict):
    """Requests of days, drawn hour by hour."""

    start_s: float = Field(default=0.0, ge=0)
    """Where to start, in seconds of the week; arrivals count from here."""
    duration_s: float = Field(default=WEEK_S, gt=0)
    """How long, in seconds."""
    niw_deadline_s: float = Field(default=86_400.0, gt=0)
    """Seconds after which a request of tier NIW should have finished."""
    requests: int | None = Field(default=None, ge=1)
    """Take at most so many requests."""

    def week(self) -> O365 | ServeGenWeek:
        """What draws the requests.

        Raises:
            ValueError: An option is out of range.
        """
        raise NotImplementedError

    def build(self, seed: int) -> RequestTable:
        """Draw the requests; the same seed gives the same table."""
        if self.requests is None:
            return self.week().requests(seed)
        first, *others = self.parts(seed)
        for part in others:
            first = first.followed_by(part)
        return first

    def parts(self, seed: int) -> Iterator[RequestTable]:
        """The same requests in parts, in bounded memory."""
        left = self.requests
        for part in self.week().parts(seed):
            if left is None:
                yield part
                continue
            yield part[:left]
            left -= min(left, len(part))
            if not left:
                return


class O365Week(_Week):
    """An O365-like week: 4 models, 3 regions, 3 tiers (SageServe, arXiv:2502.14617)."""

    kind: Literal["o365"]
    scale: float = Field(default=0.01, gt=0)
    """Factor on the rates; 1 is 10 million requests a week."""
    niw_share: float = Field(default=0.28, ge=0, le=1)
    """Share of tier NIW."""
    fast_share: float = Field(default=0.6, ge=0, le=1)
    """Share of IW-F in interactive requests."""
    shape: Literal["recorded", "regular"] = "recorded"
    """Whether the second model falls silent on Tuesday afternoon, as recorded."""
    burst_copies: int = Field(default=0, ge=0)
    """Further copies of each request of the first minute of an hour; the burst test has 8."""
    max_prompt_tokens: int = Field(default=65_536, ge=1)
    """Longest prompt."""
    max_output_tokens: int = Field(default=4_096, ge=1)
    """Longest answer."""
    models: list[str] | None = Field(default=None, min_length=4, max_length=4)
    """Names of the models, by their place in the published figures; without it, the stand-ins of
    the published simulator."""
    regions: list[str] | None = Field(default=None, min_length=3, max_length=3)
    """Names of the western, central and eastern region; without it, westus, centralus, eastus."""

    def week(self) -> O365:
        """What draws the requests; errors as in the base class."""
        from envs.workloads import O365

        options: dict[str, Any] = self.model_dump(exclude={"kind", "requests"}, exclude_none=True)
        names: dict[str, Any] = {
            key: tuple(options[key]) for key in ("models", "regions") if key in options
        }
        return O365(**(options | names))


class ServeGenWeeks(_Week):
    """ServeGen's recorded weeks, mapped to models, regions and tiers."""

    kind: Literal["servegen_week"]
    paths: dict[str, str] = Field(min_length=1)
    """File `*_trace.parquet` by the name of the model, seen from the folder of the scenario."""
    rate_scale: float | dict[str, float] = 0.01
    """Factor on the rates of all, or by the name of the model."""
    regions: dict[str, float] | None = None
    """Share of each region; without it, SageServe's three."""
    tiers: dict[str, float] | None = None
    """Share of each tier; without it, SageServe's."""
    largest: float = Field(default=0.1, ge=0, le=1)
    """Share of a model's load above which a client is split over regions and tiers."""

    def week(self) -> ServeGenWeek:
        """What draws the requests; errors as in the base class."""
        from envs.workloads import ServeGenWeek

        options = self.model_dump(exclude={"kind", "requests"}, exclude_none=True)
        return ServeGenWeek(**options)
