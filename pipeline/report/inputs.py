"""Result files, read and nothing more. What cannot be read is named, never made up."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pipeline import files, provenance
from pipeline.errors import PipelineError, ResultError
from pipeline.files import VARIANT, plain_name
from pipeline.report import style
from pipeline.report.study import PARTS, Study, unknown_model
from pipeline.results import (
    BOUND,
    EngineResult,
    PerplexityResult,
    ProjectionResult,
    SurfaceResult,
    TasksResult,
    TrainingResult,
    TtftResult,
    read,
)
from pipeline.results.cell import TimedRow
from pipeline.results.file import AnyResult, Result, Row
from pipeline.results.kinds import Kind
from pipeline.results.quality import QualityResult
from pipeline.results.search import SearchResult
from pipeline.results.tasks import against_baseline
from pipeline.results.trade import TradeResult

PAPER_ARCHITECTURES = ("standard", "parallel", "kraken")
NO_KIND = ": no kind of result that a report shows; left out"
DEMO = "Demo scale: measured rows show that everything works, not what the paper's models would do."
ModelResult = TrainingResult | PerplexityResult | TasksResult
StudyResult = SearchResult | QualityResult | TradeResult
KINDS_OF: dict[type[Result], tuple[Kind, ...]] = {  # of rows; measured everywhere else
    TtftResult: ("measured", "measured compute, modelled communication"),
    ProjectionResult: ("projected",),
    SurfaceResult: ("projected",),
    TradeResult: ("measured", "measured compute, modelled communication", "projected"),
}
AnyModelResult = TypeVar("AnyModelResult", TrainingResult, PerplexityResult, TasksResult)


def overrides(name: str) -> str:
    """What follows the mark of overridden settings in a name; empty where nothing was overridden."""
    return name.partition(VARIANT)[2]


def ordered(architectures: Iterable[str]) -> list[str]:
    """Each once: the paper's three, then the others as they come, the bound last."""
    seen = dict.fromkeys(architectures)
    others = [name for name in seen if name not in (*PAPER_ARCHITECTURES, BOUND)]
    return [name for name in (*PAPER_ARCHITECTURES, *others, BOUND) if name in seen]


@dataclass
class Inputs:
    """The result files of one scale, by model, or by file name without its first word."""

    scale: str
    training: dict[str, TrainingResult] = field(default_factory=dict)
    perplexity: dict[str, PerplexityResult] = field(default_factory=dict)
    tasks: dict[str, dict[str, TasksResult]] = field(default_factory=dict)  # evaluation -> model -> result
    ttft: dict[str, TtftResult] = field(default_factory=dict)
    projections: dict[str, ProjectionResult] = field(default_factory=dict)
    surfaces: dict[str, SurfaceResult] = field(default_factory=dict)
    engines: dict[str, EngineResult] = field(default_factory=dict)  # by folder
    studies: dict[str, Study] = field(default_factory=dict)  # by folder
    faults: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    @property
    def demo(self) -> str:
        """The sentence above what holds rows of a demo; empty at another scale."""
        return DEMO if self.scale == "demo" else ""

    @property
    def by_model(self) -> list[Mapping[str, ModelResult]]:
        return [self.training, self.perplexity, *self.tasks.values()]

    @property
    def models(self) -> list[str]:
        """Every model that was trained or scored."""
        return list(dict.fromkeys(model for group in self.by_model for model in group))

    def architecture(self, model: str) -> str:
        """The architecture of one of `models`."""
        return next(group[model].architecture for group in self.by_model if model in group)

    @cached_property
    def colours(self) -> dict[str, str]:
        """A colour an architecture, the same in every figure."""
        rows: list[TimedRow] = [row for timed in self.ttft.values() for row in timed.rows]
        rows += [row for projected in self.projections.values() for row in projected.rows]
        found = [*(row.architecture for row in rows), *map(self.architecture, self.models)]
        return style.colours(
            [*found, *(name for study in self.studies.values() for name in study.architectures.values())]
        )

    def read(self, path: Path, kind: type[AnyResult]) -> AnyResult | None:
        """The result in `path`, or None with the fault noted."""
        try:
            result = read(path, kind)
            edited = _is_edited(path)
        except (OSError, ResultError) as error:
            self.faults.append(str(error))
            return None
        if edited:
            self.faults.append(f"{path} was changed by hand; make it again with {kind.command}")
            return None
        scale = getattr(result, "scale", self.scale)
        if scale != self.scale and isinstance(result, EngineResult):
            return None  # engines of all scales lie in one folder
        odd = f"is of scale {scale}, not {self.scale}" if scale != self.scale else _odd_place(result, path)
        odd = odd or (unknown_model(result) if isinstance(result, QualityResult) else None)
        if odd := odd or _odd_kind(result):
            self.faults.append(f"{path} {odd}; left out")
            return None
        self.sources.append(str(path))
        return result


def read_inputs(results: Path, engines: Path, scale: str, order: list[str]) -> Inputs:
    """Everything under results/<scale> and engines; models in `order` first, then by architecture and name.

    Raises PipelineError where there is nothing to report.
    """
    inputs, folder = Inputs(scale), results / scale
    for path in sorted(folder.glob("*/*.json"), key=lambda path: (path.parent, path.stem)):  # variants come last
        _read_of_model(inputs, path)
    inputs.training = _in_order(inputs.training, order)
    inputs.perplexity = _in_order(inputs.perplexity, order)
    inputs.tasks = {name: _compared(_in_order(scored, order)) for name, scored in inputs.tasks.items()}
    for path in sorted(folder.glob("*.json")):
        first, _, rest = path.stem.partition("-")
        if first == "ttft" and (timed := inputs.read(path, TtftResult)):
            inputs.ttft[rest] = timed
        elif first == "projection" and (projected := inputs.read(path, ProjectionResult)):
            inputs.projections[rest] = projected
        elif first == "surface" and (fitted := inputs.read(path, SurfaceResult)):
            inputs.surfaces[rest] = fitted
        elif first not in ("ttft", "projection", "surface"):
            inputs.faults.append(f"{path}{NO_KIND}")
    for path in sorted(engines.glob("*/engine.json")):
        if engine := inputs.read(path, EngineResult):
            inputs.engines[path.parent.name] = engine
    if not inputs.sources:
        raise PipelineError(
            f"no result files under {folder} or {engines}: nothing to report. Make some first, as "
            "python -m pipeline +experiment=kraken_tp4" + "".join(f"\n  - {fault}" for fault in inputs.faults)
        )
    return inputs


def _is_edited(path: Path) -> bool:
    """Whether a file's body is not the one its writer stated; a file that states none is taken as it is."""
    body = files.read_json(path)
    stated = (body.pop("provenance", None) or {}).get("body")
    return stated not in (None, provenance.fingerprint(body))


def _odd_place(result: Result, path: Path) -> str | None:
    """How a result contradicts the place where it lies: what is shown of it takes its name from there."""
    folder, name = plain_name(path.parent.name), plain_name(path.stem)
    if isinstance(result, StudyResult) and result.study != folder:
        return f"is of study {result.study}"
    if isinstance(result, TrainingResult | PerplexityResult | TasksResult) and result.model != folder:
        return f"is of model {result.model}"
    if isinstance(result, TasksResult) and result.evaluation != name:
        return f"is of evaluation {result.evaluation}"
    first = "ttft" if isinstance(result, TtftResult) else "surface"
    if isinstance(result, TtftResult | SurfaceResult) and not f"{name}-".startswith(f"{first}-{result.benchmark}-"):
        return f"is of benchmark {result.benchmark}"
    if isinstance(result, ProjectionResult) and name != f"projection-{result.hardware}-{result.benchmark}":
        return f"is of hardware {result.hardware} and benchmark {result.benchmark}"
    written = (result.provenance or {}).get("file")
    return f"was written as {written}" if written not in (None, "/".join(path.parts[-2:])) else None


def _odd_kind(result: Result) -> str | None:
    """Rows of a kind that no such result has."""
    allowed = KINDS_OF.get(type(result), ("measured",))
    rows: list[Row] = []
    if isinstance(result, TtftResult | ProjectionResult | TradeResult | SurfaceResult):
        rows += result.rows
    elif isinstance(result, TasksResult):
        rows += result.tasks.values()
    elif isinstance(result, SearchResult):
        rows += result.trials
    elif isinstance(result, QualityResult):
        rows += [*result.runs, *result.cells]
    kinds = [getattr(result, "kind", allowed[0]), *(row.kind for row in rows)]
    odd = next((kind for kind in kinds if kind not in allowed), None)
    return f"has a row of kind {odd}, where only {' or '.join(allowed)} can be" if odd else None


def _read_of_model(inputs: Inputs, path: Path) -> None:
    model, (what, *variant) = path.parent.name, path.stem.split(VARIANT)
    if path.stem == "search":
        if searched := inputs.read(path, SearchResult):
            inputs.studies.setdefault(model, Study(model)).search = searched
    elif path.stem == "quality":
        if judged := inputs.read(path, QualityResult):
            inputs.studies.setdefault(model, Study(model)).quality = judged
    elif what.partition("-")[0] == "trade":
        if timed := inputs.read(path, TradeResult):
            inputs.studies.setdefault(model, Study(model)).trades[path.stem] = timed
    elif what in PARTS:  # a study's other files have no variants
        inputs.faults.append(f"{path}{NO_KIND}")
    elif what == "training":
        if trained := inputs.read(path, TrainingResult):
            inputs.training[model] = trained
    elif what == "perplexity":
        if scored := inputs.read(path, PerplexityResult):
            inputs.perplexity[VARIANT.join([model, *variant])] = scored
    elif tasks := inputs.read(path, TasksResult):
        inputs.tasks.setdefault(path.stem, {})[model] = tasks


def _in_order(results: dict[str, AnyModelResult], order: list[str]) -> dict[str, AnyModelResult]:
    def place(model: str) -> tuple[int, int, str]:
        known = [*PAPER_ARCHITECTURES, results[model].architecture]
        return [*order, model].index(model), known.index(results[model].architecture), model

    return {model: results[model] for model in sorted(results, key=place)}


def _compared(scored: dict[str, TasksResult]) -> dict[str, TasksResult]:
    """Scores that were taken with no baseline at hand are held against the first model's, on the same items."""
    first = next(iter(scored.values()))
    return {
        model: result.model_copy(update={"baseline": against_baseline(result, first)})
        if result is not first and result.baseline is None and result.bootstrap_iters
        else result
        for model, result in scored.items()
    }
