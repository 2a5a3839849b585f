"""Workloads: which requests arrive when, drawn from published figures or read from a trace."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from envs.scenarios.strict import Strict
from envs.scenarios.weeks import O365Week, ServeGenWeeks

if TYPE_CHECKING:
    from envs.workloads import RequestTable
    from envs.workloads.prompts import Grouping, Part, Prompts, Texts


Process = Literal["poisson", "gamma", "mmpp", "uniform", "at_once"]


class _Drawn(Strict):
    """Requests that are drawn; parameters of the arrivals that are left out take defaults."""

    requests: int = Field(ge=1)
    """How many requests arrive."""
    cv: float | None = Field(default=None, gt=0)
    """Coefficient of variation of the gaps (`gamma`); 1 is Poisson, more is bursty."""
    burst_factor: float | None = Field(default=None, gt=0)
    """Rate in a burst over the mean rate (`mmpp`)."""
    burst_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the time spent in bursts (`mmpp`)."""
    mean_burst_s: float | None = Field(default=None, gt=0)
    """Mean length of a burst in seconds (`mmpp`)."""

    @model_validator(mode="after")
    def _check_process(self) -> _Drawn:
        allowed = {"gamma": {"cv"}, "mmpp": {"burst_factor", "burst_share", "mean_burst_s"}}
        arrivals: str = getattr(self, "arrivals")  # noqa: B009, each kind has its own choice
        extra = self.process.keys() - allowed.get(arrivals, set())
        if extra:
            raise ValueError(f"{' and '.join(sorted(extra))}: not of {arrivals} arrivals")
        return self

    @property
    def process(self) -> dict[str, float]:
        """The parameters of the arrival process that were given."""
        names = ("cv", "burst_factor", "burst_share", "mean_burst_s")
        values = ((name, getattr(self, name)) for name in names)
        return {name: value for name, value in values if value is not None}


class RouterMix(_Drawn):
    """The five-task mix of the Intelligent Router paper (arXiv:2408.13510 Table 1)."""

    kind: Literal["router_mix"]
    rate: float = Field(gt=0)
    """Mean requests per second."""
    arrivals: Process = "poisson"
    """Arrival process."""
    max_prompt_tokens: int = Field(default=1000, ge=1)
    """Longest prompt; the paper filters at 1,000."""
    max_output_tokens: int = Field(default=2048, ge=1)
    """Longest answer."""

    def build(self, seed: int) -> RequestTable:
        """Draw the requests; the same seed gives the same table."""
        from envs.workloads import router_mix

        return router_mix(
            self.requests,
            self.rate,
            seed,
            arrivals=self.arrivals,
            max_prompt_tokens=self.max_prompt_tokens,
            max_output_tokens=self.max_output_tokens,
            **self.process,
        )


class RouterClasses(_Drawn):
    """The light and heavy classes of the Intelligent Router paper (arXiv:2408.13510 Table 2)."""

    kind: Literal["router_classes"]
    rate: float = Field(gt=0)
    """Mean requests per second."""
    arrivals: Process = "poisson"
    """Arrival process."""
    pattern: Literal["LH+HL", "all", "LH then HL", "HL then LH"] = "LH+HL"
    """Which classes (light or heavy prompt, then decode), mixed or one after the other."""

    def build(self, seed: int) -> RequestTable:
        """Draw the requests; the same seed gives the same table."""
        from envs.workloads import router_classes

        return router_classes(
            self.pattern, self.requests, self.rate, seed, arrivals=self.arrivals, **self.process
        )


class Azure(_Drawn):
    """Lengths and burstiness of the Azure LLM inference traces of 2023 (Splitwise, ISCA 2024)."""

    kind: Literal["azure_conversation", "azure_code"]
    rate: float | None = Field(default=None, gt=0)
    """Mean requests per second; without it, the trace's own."""
    arrivals: Literal["recorded"] | Process = "recorded"
    """Gaps as recorded, stretched to the rate, or an arrival process."""

    def build(self, seed: int) -> RequestTable:
        """Draw the requests; the same seed gives the same table."""
        from envs.workloads import azure

        trace: Literal["conversation", "code"] = (
            "code" if self.kind == "azure_code" else "conversation"
        )
        return azure(trace, self.requests, self.rate, seed, arrivals=self.arrivals, **self.process)


class Copilot(Strict):
    """Calls of thousands of users to 23 applications, from FairServe's figures (2411.15997)."""

    kind: Literal["copilot"]
    requests: int = Field(default=10_000, ge=1)
    """Calls before any is dropped."""
    duration_s: int | None = Field(default=None, ge=1)
    """Whole seconds over which they arrive; without it, at the trace's 139 a second."""
    users: int | None = Field(default=None, ge=1)
    """Users; without it, in the trace's proportion."""
    zipf: float = Field(default=0.2, ge=0)
    """Exponent of the activity of the users that are not accounts."""
    service_accounts: int = Field(default=4, ge=0, le=4)
    """Heavy users, with the applications that they alone use."""
    mix: dict[str, float] = Field(default_factory=dict)
    """Factors on the calls of applications."""
    held_out: list[str] = Field(default_factory=list)
    """Applications that send nothing."""
    length_divisor: int = Field(default=8, ge=1)
    """Prompts and answers are divided by it; the published runs took 8."""
    max_request_tokens: int | None = Field(default=2000, ge=1)
    """Drop calls of so many tokens or more; the published runs took 2,000."""

    def build(self, seed: int) -> RequestTable:
        """Draw the requests; the same seed gives the same table."""
        from envs.workloads import copilot_calls

        options = self.model_dump(exclude={"kind", "requests"})
        return copilot_calls(self.requests, seed, **options)


class Vtc(Strict):
    """A synthetic workload of the VTC paper (OSDI 2024); its clients are the tenants."""

    kind: Literal["vtc"]
    suite: Literal[
        "overload",
        "overload-multi",
        "proportional",
        "on_off_less",
        "on_off_overload",
        "increase",
        "poisson_short_long",
        "poisson_short_long_2",
        "dist_shift",
        "weighted",
    ]
    """Which workload (`envs.workloads.VTC_SUITES`)."""
    duration_s: float | None = Field(default=None, gt=0)
    """Seconds over which requests are sent; without it, as in the paper."""
    rate_scale: float = Field(default=1.0, gt=0)
    """Factor on all rates."""
    requests: int | None = Field(default=None, ge=1)
    """Take at most so many requests."""

    def build(self, seed: int) -> RequestTable:
        """Draw the requests; the same seed gives the same table."""
        from envs.workloads import vtc_suite

        options: dict[str, Any] = {"duration_s": self.duration_s, "rate_scale": self.rate_scale}
        table = vtc_suite(self.suite, seed, **options)
        return table if self.requests is None else table[: self.requests]


class PromptMix(_Drawn):
    """Real prompts of a file (docs/predictors.md); the file is not part of the package.

    Episodes of training, validation and evaluation draw from the parts of the same names of a
    split in which nothing leaks, so that a predictor trained on the file never meets a prompt
    that it was trained on.
    """

    kind: Literal["prompts"]
    path: str
    """File of prompts with their answers, seen from the folder of the scenario's file."""
    rate: float = Field(gt=0)
    """Mean requests per second."""
    arrivals: Process = "poisson"
    """Arrival process."""
    split: Literal["related", "prompt"] = "related"
    """Which prompts belong together, see `envs.workloads.prompts`."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the split."""
    max_per_task: int | None = Field(default=None, ge=1)
    """Rows of a task, at most."""

    def build(self, seed: int) -> RequestTable:
        """Draw the requests; the same seed gives the same table.

        Raises:
            TraceError: The file cannot be read.
            ValueError: It has too few prompts.
        """
        from envs.scenarios.seeds import purpose_of
        from envs.workloads import prompt_mix

        purpose = purpose_of(seed)
        part: Part = "test" if purpose == "evaluation" else purpose
        prompts = _split(self.path, self.split, self.split_seed, self.max_per_task)[part]
        return prompt_mix(
            prompts, self.requests, self.rate, seed, arrivals=self.arrivals, **self.process
        )

    def texts(self, table: RequestTable) -> Texts:
        """(n,) the prompts of requests that were drawn here."""
        return _read(self.path).text[table.request_id]


@lru_cache(maxsize=4)
def _read(path: str) -> Prompts:
    from envs.workloads.prompts import read_prompts

    return read_prompts(path)


@lru_cache(maxsize=4)
def _split(
    path: str, grouping: Grouping, seed: int, most_per_task: int | None
) -> dict[Part, Prompts]:
    from envs.workloads.prompts import split

    prompts = _read(path)
    parts = split(prompts, grouping, seed, most_per_task)
    return {part: prompts.take(rows) for part, rows in parts.items()}


class Trace(Strict):
    """A recorded trace (`envs.workloads.read_trace`), or a part of it.

    A seed changes nothing in a recorded trace but the predictions; from ServeGen's client windows
    (format `servegen`, also where `auto` tells it) it draws the requests.
    """

    kind: Literal["trace"]
    path: str
    """File, seen from the folder of the scenario's file."""
    format: str = "auto"
    """A format of `read_trace`; `auto` tells it by content."""
    columns: dict[str, str] | None = None
    """Column of the file by column of the request table, for other formats."""
    sort: bool = False
    """Sort by arrival; otherwise unsorted rows are an error."""
    on_zero: Literal["error", "drop", "one"] = "error"
    """What to do with requests of 0 tokens: refuse, drop, or count one token."""
    start_s: float = Field(default=0.0, ge=0)
    """Where to start, in seconds of the trace; arrivals count from here."""
    duration_s: float | None = Field(default=None, gt=0)
    """Seconds of the trace to take; without it, all that follow (an hour of ServeGen's)."""
    limit: int | None = Field(default=None, ge=1)
    """Take at most so many requests."""
    rate_scale: float = Field(default=1.0, gt=0)
    """Factor on the rate: 2 lets the same requests arrive in half of the time, and draws twice as
    many in the same time from ServeGen's."""

    def build(self, seed: int) -> RequestTable:
        """Read the requests.

        Raises:
            TraceError: The file cannot be read or used; the message names the mend.
            ValueError: An option is refused, or no request is left.
        """
        from envs.workloads import read_trace

        format = self.read_format()
        if format == "servegen":
            options: dict[str, Any] = {"start_s": self.start_s, "rate_scale": self.rate_scale}
            if self.duration_s is not None:
                options["duration_s"] = self.duration_s
            table = read_trace(self.path, format, seed=seed, **options)
        else:
            # The formats that bring times and lengths of their own kind take no such options.
            cleaning: dict[str, Any] = {"sort": self.sort, "on_zero": self.on_zero}
            given = {k: v for k, v in cleaning.items() if k in self.model_fields_set}
            table = self._part(read_trace(self.path, format, self.columns, **given))
        return table if self.limit is None else table[: self.limit]

    def read_format(self) -> str:
        """The format that the file is read by, never `auto`.

        Raises:
            TraceError: The file is absent, damaged or of unknown format.
            ValueError: The format is unknown, or takes no columns.
        """
        from envs.workloads import trace_format

        return trace_format(self.path, self.format, self.columns)

    def _part(self, table: RequestTable) -> RequestTable:
        stop_s = math.inf if self.duration_s is None else self.start_s + self.duration_s
        try:
            return table.part(self.start_s, stop_s, self.rate_scale)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None


Workload = Annotated[
    RouterMix
    | RouterClasses
    | Azure
    | Copilot
    | Vtc
    | O365Week
    | ServeGenWeeks
    | PromptMix
    | Trace,
    Field(discriminator="kind"),
]
