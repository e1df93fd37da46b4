"""The base of every configuration group, and the types that several share."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Group(BaseModel):
    """One Hydra group: frozen, typed strictly, unknown keys and numbers that are not finite refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def check_number(cls, value: Any, field: ValidationInfo) -> Any:
        """Python takes true for 1; and what is read back from files must hold every number."""
        if field.field_name in cls.model_fields and cls.model_fields[field.field_name].annotation in (int, float):
            if isinstance(value, bool):
                raise ValueError(f"={str(value).lower()}: must be a number")
            if isinstance(value, int) and abs(value) >= 2**63:
                raise ValueError(f"={value}: must be below 2^63")
        return value

    def identity(self) -> dict[str, Any]:
        """The values that define a result, as plain JSON data."""
        return self.model_dump(mode="json")


def _is_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(
            f"={value!r}: names files and folders: must be 1 to 100 letters, digits, '.', '_' or '-', "
            "and begin with a letter or digit"
        )
    return value


def _once(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError(f"={values}: must name each once")
    return values


Name = Annotated[str, AfterValidator(_is_name)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator takes that is seeded with it
Once = AfterValidator(_once)  # of a list
