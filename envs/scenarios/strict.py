"""The base of every model of the schema: immutable, exact types, no unknown keys."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from envs.scenarios.errors import did_you_mean, from_validation, shown


class Strict(BaseModel):
    """A mapping of the YAML file, checked key by key.

    Types are exact (`"8"` is no number, `true` no count), so that a typing slip is told instead
    of guessed at; an integer is taken where a real number is asked for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    mend = did_you_mean(key, cls.model_fields)
                    raise ValueError(f"unknown key {shown(key)}; {mend}")
        return data


Model = TypeVar("Model", bound=Strict)


def validated(kind: type[Model], data: object, source: str) -> Model:
    """`data` as a checked object.

    Raises:
        ScenarioError: A key or value is refused; the message names the source and the key.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise from_validation(error, source, data) from None
