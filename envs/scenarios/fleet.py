"""Fleets: which engines serve, in groups of equal instances."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from envs.scenarios.errors import ScenarioError
from envs.scenarios.strict import Strict

if TYPE_CHECKING:
    from envs.hardware import CostModel
    from envs.simulator.config import EngineConfig


class EngineGroup(Strict):
    """`count` equal instances. Their cost model is a preset, or that of `model` on `gpu`."""

    count: int = Field(default=1, ge=1)
    """Instances in the group."""
    preset: str | None = None
    """Published cost model such as `v100-llama2-7b`, instead of `model` and `gpu`."""
    model: str | None = None
    """Model in the catalogue, such as `Llama-2-70B`."""
    gpu: str | None = None
    """GPU in the catalogue, such as `A100-SXM4-80GB`."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs that share one instance's weights."""
    engine: str = "vllm"
    """Serving engine whose measurements the cost model follows."""
    precision: Literal["bf16", "fp8", "int8", "fp4", "int4"] = "bf16"
    """Number format of the weights, which sets the step times and the room for the KV cache."""
    kv_capacity_tokens: int | None = Field(default=None, ge=1)
    """Tokens that the KV cache holds; without it, what GPU memory leaves after the weights."""
    memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Fraction of GPU memory that the engine may use."""
    max_num_seqs: int = Field(default=256, ge=1)
    """Requests in service at most."""
    max_batched_tokens: int = Field(default=8192, ge=1)
    """Prefill tokens of one iteration, or its token budget under `chunked`."""
    batching: Literal["prefill_first", "chunked", "slora", "static"] = "prefill_first"
    """How prefill and decode share an iteration."""
    decode_steps: int = Field(default=10, ge=0, le=2**20)
    """Decode iterations between prefill iterations (`slora`)."""
    queue: Literal["fcfs", "sjf", "srpt", "edf", "pf", "priority", "dpa"] = "fcfs"
    """Scheduler of an instance's waiting queue, one of `envs.simulator.SCHEDULERS`."""
    intake_per_iteration: int = Field(default=0, ge=0, le=2**20)
    """Requests that the scheduler takes in after an iteration; 0 takes all at once."""
    skip_ahead: int = Field(default=0, ge=0, le=2**20)
    """Waiting requests that do not fit which an admission may pass over; 0 stops at the first."""
    admission: Literal["growth", "reserve", "oracle"] = "growth"
    """KV that a request must find at admission: for what it has, for what all in service are
    predicted to grow to, or for what they will grow to (which no engine can know)."""
    watermark: float = Field(default=0.01, ge=0, lt=1)
    """Fraction of the KV cache kept free at admission."""
    kv_block_tokens: int = Field(default=1, ge=1, le=2**20)
    """Tokens of a KV block; occupancies are rounded up to whole blocks."""
    adapter_tokens: int = Field(default=0, ge=0, le=2**20)
    """KV tokens that each tenant in service takes besides (LoRA adapters)."""
    prefix_cache: bool = False
    """Whether KV that was given up is found again until it is overwritten."""
    serves: str | None = Field(default=None, min_length=1)
    """Model that requests must ask for, where they name one; without it, any. Another name than
    `model` is an alias, as of a fine-tuned one."""
    lane: Literal["any", "interactive", "batch"] = "any"
    """Tiers that the instances serve: all, IW-F and IW-N, or NIW."""
    price_per_hour: float | None = Field(default=None, ge=0)
    """Dollars per hour for one instance; without it, the catalogue's price of its GPUs."""

    @model_validator(mode="after")
    def _check_together(self) -> EngineGroup:
        if self.preset is not None:
            extra = [key for key in ("model", "gpu") if getattr(self, key) is not None]
            extra += {"tensor_parallel", "engine", "precision"} & self.model_fields_set
            if extra:
                raise ValueError(f"a preset settles {' and '.join(sorted(extra))}: leave them out")
        elif self.model is None or self.gpu is None:
            raise ValueError("give a preset, or a model and a gpu")
        if self.batching == "chunked" and self.max_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"chunked batching needs max_batched_tokens ({self.max_batched_tokens}) of at "
                f"least max_num_seqs ({self.max_num_seqs}), so that every decode gets its token"
            )
        return self

    def engines(self, name: str) -> list[EngineConfig]:
        """The instances of the group, labelled `name-0`, `name-1`, ...

        Raises:
            KeyError: The catalogue lacks the preset, model or GPU.
            ValueError: The model does not fit the GPUs.
        """
        # Here, not at the top: to list and check scenarios must not load compiled code.
        from envs.simulator.config import EngineConfig

        cost = self._cost()
        capacity = self._capacity(cost)
        hourly = self._hourly(cost)
        return [
            EngineConfig(
                cost=cost,
                kv_capacity_tokens=capacity,
                max_num_seqs=self.max_num_seqs,
                max_batched_tokens=self.max_batched_tokens,
                batching=self.batching,
                decode_steps=self.decode_steps,
                queue=self.queue,
                intake_per_iteration=self.intake_per_iteration,
                skip_ahead=self.skip_ahead,
                admission=self.admission,
                watermark=self.watermark,
                kv_block_tokens=self.kv_block_tokens,
                adapter_tokens=self.adapter_tokens,
                prefix_cache=self.prefix_cache,
                model=self.serves or "",
                lane=self.lane,
                name=f"{name}-{index}",
                gpus=cost.tensor_parallel,
                price_per_hour=hourly,
            )
            for index in range(self.count)
        ]

    def check(self) -> None:
        """See to it that the catalogue has the names and that the model fits.

        Raises:
            KeyError: As `engines`.
            ValueError: As `engines`.
        """
        self._capacity(self._cost())

    def _cost(self) -> CostModel:
        if self.preset is not None:
            from envs.hardware import preset

            return preset(self.preset)
        from envs.hardware import cost_model

        # The validator has seen to it that both are given.
        assert self.model is not None and self.gpu is not None
        return cost_model(self.model, self.gpu, self.tensor_parallel, self.engine, self.precision)

    def _capacity(self, cost: CostModel) -> int:
        if self.kv_capacity_tokens is not None:
            return self.kv_capacity_tokens
        # A published preset states its cache, and with it the share of memory that it used.
        if cost.kv_tokens and "memory_utilization" not in self.model_fields_set:
            return cost.kv_tokens
        from envs.hardware import kv_capacity_tokens

        return kv_capacity_tokens(
            cost.model, cost.gpu, cost.tensor_parallel, self.memory_utilization, cost.precision
        )

    def _hourly(self, cost: CostModel) -> float:
        if self.price_per_hour is not None:
            return self.price_per_hour
        from envs.hardware import price

        try:
            return price(cost.gpu) * cost.tensor_parallel
        except KeyError:
            return math.nan  # costs are then unknown in every result, not zero


class Fleet(Strict):
    """Groups of instances by name."""

    name: str = ""
    description: str = ""
    source: str = ""
    """Where the figures are from."""
    groups: dict[str, EngineGroup] = Field(min_length=1)

    def engines(self) -> list[EngineConfig]:
        """One configuration per instance, in the order of the groups.

        Raises:
            ScenarioError: A name is not in the catalogue, or a model does not fit its GPUs.
        """
        configs: list[EngineConfig] = []
        for name, group in self.groups.items():
            try:
                configs += group.engines(name)
            except (KeyError, ValueError) as error:
                problem = str(error.args[0]) if error.args else str(error)
                raise ScenarioError(self.name or "fleet", problem, ("groups", name)) from error
        return configs
