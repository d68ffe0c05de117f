"""What every part of a study file is: frozen, without unknown fields, and without truth values."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, field_validator


class Section(BaseModel):
    """A part of the study file: frozen, and a field that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any) -> Any:
        """No field of the study is true or false, and pydantic would take `rows: true` for one row."""
        return not_truth(value)


def not_truth(value: Any) -> Any:
    """The value, where it is not true or false."""
    if isinstance(value, bool):
        raise ValueError(f"cannot be {str(value).lower()}")  # noqa: TRY004  # pydantic wants a ValueError
    return value


NotTruth = BeforeValidator(not_truth)
