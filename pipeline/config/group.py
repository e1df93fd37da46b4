"""The base of every configuration group."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """One Hydra group: frozen, typed strictly, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def identity(self) -> dict[str, Any]:
        """The values that define a result, as plain JSON data."""
        return self.model_dump(mode="json")
