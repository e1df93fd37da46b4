"""What every result file has in common: typed, of a named schema and version, written whole or not at all."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import files
from pipeline.errors import ResultError
from pipeline.results.kinds import Kind

NUMBERS = re.compile(r"\[\s+(-?\d[^\[\]{}\"]*?)\s+\]")


class Typed(BaseModel):
    """Part of a result: frozen, unknown keys refused, NaN and infinities refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Row(Typed):
    """One number, or some that belong together, and where it comes from."""

    kind: Kind = Field(description="where the numbers of this row come from")


class Result(Typed):
    """A whole result file. Subclasses fix `schema_name` and `schema_version` by a Literal with that default."""

    file_name: ClassVar[str]  # where it stands
    command: ClassVar[str]  # what makes it
    schema_name: str = Field(description="kind of result file")
    schema_version: int = Field(description="raised whenever a reader of the version before would misread the file")
    provenance: dict[str, Any] | None = Field(None, description="commit, versions, device and inputs of the run")

    def body(self) -> dict[str, Any]:
        """As plain JSON data, without provenance."""
        return self.model_dump(mode="json", exclude={"provenance"})


AnyResult = TypeVar("AnyResult", bound=Result)


def write(path: Path, result: Result, provenance: dict[str, Any]) -> None:
    """Write `result` with its provenance, atomically. Raises OutputError, and ValueError for NaN or infinities."""
    text = json.dumps({**result.body(), "provenance": provenance}, indent=2, allow_nan=False)
    files.write_text(path, NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")


def read(path: Path, kind: type[AnyResult]) -> AnyResult:
    """The result in `path`; raises ResultError, one line, for a file that is no whole result of this kind and version.

    Raises FileNotFoundError where there is none.
    """
    again = f"make it again with {kind.command}"
    wanted = {key: kind.model_fields[key].default for key in ("schema_name", "schema_version")}
    try:
        body = files.read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultError(f"{path} is damaged ({error}); {again}") from None
    if not isinstance(body, dict):
        raise ResultError(f"{path} is damaged (no JSON object); {again}")
    if any(body.get(key) != value for key, value in wanted.items()):
        found = f"{body['schema_name']} {body.get('schema_version')}" if "schema_name" in body else "no schema"
        raise ResultError(f"{path} has {found}, here {' '.join(map(str, wanted.values()))} is read; {again}")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        where = ".".join(map(str, first["loc"]))
        rest = f", and {more} more" if more else ""
        raise ResultError(f"{path} is damaged ({where}: {first['msg']}{rest}); {again}") from None
