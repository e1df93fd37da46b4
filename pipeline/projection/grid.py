"""A benchmark's grid projected for one device: rows, errors against published times, and the headline."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.config import ModelConfig
from pipeline.config.benchmark import BenchmarkConfig, Shape
from pipeline.config.reference import PublishedTtft, ReferenceConfig
from pipeline.models.timed import ModelByName, timed_model
from pipeline.projection.calibration import Calibration, published_ms
from pipeline.projection.hardware import Hardware
from pipeline.projection.prefill import Prefill, prefill
from pipeline.results.cell import BASELINE, BOUND, Parts, TimedRow, Timeline, TimelineEvent
from pipeline.results.headline import headline
from pipeline.results.projection import CalibrationFit, ErrorStatistics, LinkSweepRow, ProjectionResult, ProjectionRow
from pipeline.results.statistics import geomean

PUBLISHED_ARCHITECTURES = tuple(name.removesuffix("_ms") for name in PublishedTtft.model_fields if name.endswith("_ms"))
LINK_FACTORS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0)
DRAWN_LAYERS = 3
METHOD = "roofline per operator on two streams; collectives placed by their dependencies"


@dataclass(frozen=True)
class Cell:
    """One size, context, batch and number of ranks: all architectures are compared within it."""

    shape: Shape
    context: int
    tp_size: int
    batch_size: int


@dataclass(frozen=True)
class Placed:
    """One architecture of a cell on the device."""

    model: ModelConfig
    run: Prefill

    @property
    def milliseconds(self) -> float:
        return self.run.timeline.seconds * 1e3


def project(
    benchmark: BenchmarkConfig,
    hardware: Hardware,
    lookup: ModelByName,
    published: ReferenceConfig | None = None,
    calibration: Calibration | None = None,
    source: str = "",
) -> ProjectionResult:
    """A benchmark's grid on `hardware`, whose numbers come from `source`.

    `published` is given where the device is the one behind the published times. Raises ConfigError
    for a model that does not exist or that the ranks do not divide.
    """
    rows: list[ProjectionRow] = []
    timelines: list[Timeline] = []
    cells = list(_cells(benchmark))
    drawn = _drawn(cells)
    for cell in cells:
        placed = _place(cell, hardware, lookup, benchmark)
        rows += [_row(name, placed, cell, published, calibration) for name in placed]
        if cell == drawn:
            timelines = [_timeline(name, one.run, cell) for name, one in placed.items()]
    return ProjectionResult(
        benchmark=benchmark.name,
        hardware=hardware.name,
        hardware_source=source,
        dtype=benchmark.dtype,
        method=METHOD,
        values=hardware.fitted_values(),
        calibration=_calibration(calibration),
        rows=rows,
        headline=headline([*rows, *(_quoted(row) for row in rows if row.published_speedup is not None)]),
        published_geomean_speedup=_published_headline(rows, published),
        errors=_errors(rows),
        timelines=timelines,
        link_sweep=_link_sweep(cells, hardware, lookup, benchmark),
    )


def _cells(benchmark: BenchmarkConfig) -> Iterator[Cell]:
    for shape in benchmark.shapes:
        for context in benchmark.contexts:
            for tp_size in benchmark.tp_sizes:
                for batch_size in benchmark.batch_sizes:
                    yield Cell(shape, context, tp_size, batch_size)


def _drawn(cells: list[Cell]) -> Cell:
    """The cell whose timelines are kept: the second size's longest context on most ranks."""
    sizes = list(dict.fromkeys(cell.shape.size for cell in cells))
    size = sizes[min(1, len(sizes) - 1)]
    chosen = [cell for cell in cells if cell.shape.size == size]
    return max(chosen, key=lambda cell: (cell.context, cell.tp_size, -cell.batch_size))


def _place(cell: Cell, hardware: Hardware, lookup: ModelByName, benchmark: BenchmarkConfig) -> dict[str, Placed]:
    """Every architecture of the cell, and the bound, by name."""
    size = (cell.context, cell.tp_size, cell.batch_size, benchmark.dtype)
    models = {name: timed_model(benchmark, cell.shape, name, cell.tp_size, lookup) for name in benchmark.architectures}
    placed = {name: Placed(model, prefill(model, hardware, *size)) for name, model in models.items()}
    baseline = models[BASELINE]
    return {**placed, BOUND: Placed(baseline, prefill(baseline, hardware, *size, communicate=False))}


def _row(
    name: str,
    placed: dict[str, Placed],
    cell: Cell,
    published: ReferenceConfig | None,
    calibration: Calibration | None,
) -> ProjectionRow:
    own, run = placed[name], placed[name].run
    baseline = placed[BASELINE].milliseconds
    hideable = baseline - placed[BOUND].milliseconds
    quoted, quoted_baseline = (_published(one, cell, published) for one in (name, BASELINE))
    fitted = calibration is not None and published is not None and cell.batch_size == 1
    return ProjectionRow(
        kind="projected",
        architecture=name,
        model=own.model.name,
        n_layer=own.model.n_layer,
        size=cell.shape.size,
        context=cell.context,
        tp_size=cell.tp_size,
        batch_size=cell.batch_size,
        projected_ms=own.milliseconds,
        published_ms=quoted,
        fitted=fitted
        and calibration is not None
        and (name, cell.shape.size, cell.context, cell.tp_size) in calibration.rows,
        error_relative=None if quoted is None else own.milliseconds / quoted - 1,
        speedup=baseline / own.milliseconds - 1,
        published_speedup=None if quoted is None or quoted_baseline is None else quoted_baseline / quoted - 1,
        compute_ms=run.timeline.compute_seconds * 1e3,
        communication_ms=run.timeline.communication_seconds * 1e3,
        exposed_communication_ms=run.timeline.exposed_seconds * 1e3,
        hideable_ms=hideable,
        share_hidden=(baseline - own.milliseconds) / hideable if hideable else None,
        collectives=run.collectives,
        collective_bytes=run.collective_bytes,
        breakdown_ms=Parts(**{part: seconds * 1e3 for part, seconds in run.timeline.breakdown().items()}),
    )


def _published(name: str, cell: Cell, published: ReferenceConfig | None) -> float | None:
    """The paper's milliseconds for this row; None where it has none."""
    if published is None or name not in PUBLISHED_ARCHITECTURES or cell.batch_size != 1:
        return None
    key = (cell.shape.size, cell.context, cell.tp_size)
    for row in published.ttft:
        if (row.size, row.context, row.tp_size) == key:
            return published_ms(row, name)
    return None


def _quoted(row: ProjectionRow) -> TimedRow:
    """What the publication says of a row's cell and architecture, for the headline beside ours."""
    return TimedRow(
        kind="quoted",
        architecture=row.architecture,
        model=row.model,
        n_layer=row.n_layer,
        **dict(row.cell),
        speedup=row.published_speedup,
        compute_ms=None,
        exposed_communication_ms=None,
        hideable_ms=None,
        share_hidden=None,
    )


def _published_headline(rows: Sequence[ProjectionRow], published: ReferenceConfig | None) -> float | None:
    """The publication's own, where exactly its cells are projected."""
    quoted = [row.published_ms for row in rows if row.architecture == BASELINE]
    whole = published is not None and None not in quoted and len(quoted) == len(published.ttft)
    return published.ttft_headline_geomean if whole and published else None


def _calibration(calibration: Calibration | None) -> CalibrationFit | None:
    if calibration is None:
        return None
    return CalibrationFit(
        fitted_values=calibration.values,
        fitted_rows=sorted(calibration.rows),
        mean_absolute_error=calibration.mean_absolute_error,
    )


def _errors(rows: Sequence[ProjectionRow]) -> dict[str, ErrorStatistics | None]:
    """Relative errors against the published times, fitted and held-out rows apart."""
    known = [(row, row.error_relative) for row in rows if row.error_relative is not None]
    held_out = [(row, error) for row, error in known if not row.fitted]
    return {
        "fitted": ErrorStatistics.of([error for row, error in known if row.fitted]),
        "held_out": ErrorStatistics.of([error for _, error in held_out]),
        **{
            f"held_out_{name}": ErrorStatistics.of([error for row, error in held_out if row.architecture == name])
            for name in PUBLISHED_ARCHITECTURES
        },
    }


def _timeline(name: str, run: Prefill, cell: Cell) -> Timeline:
    """The first layers' events, for a figure like the paper's Figure 3."""
    spans = [span for span in run.timeline.spans if span.task.layer is not None and span.task.layer < DRAWN_LAYERS]
    return Timeline(
        kind="projected",
        architecture=name,
        size=cell.shape.size,
        context=cell.context,
        tp_size=cell.tp_size,
        batch_size=cell.batch_size,
        layers=DRAWN_LAYERS,
        events=[
            TimelineEvent(
                lane=span.task.stream,
                part=span.task.category,
                name=span.task.name,
                begin_ms=span.start_s * 1e3,
                end_ms=span.end_s * 1e3,
                layer=span.task.layer,
            )
            for span in spans
        ],
    )


def _link_sweep(
    cells: list[Cell], hardware: Hardware, lookup: ModelByName, benchmark: BenchmarkConfig
) -> list[LinkSweepRow]:
    """Geometric mean speedup over the grid where the link were slower or faster, all else equal."""
    rows: list[LinkSweepRow] = []
    for factor in LINK_FACTORS:
        device = replace(hardware, link_bandwidth=hardware.link_bandwidth * factor)
        speedups: dict[str, list[float]] = {}
        for cell in cells:
            placed = _place(cell, device, lookup, benchmark)
            for name, one in placed.items():
                speedups.setdefault(name, []).append(placed[BASELINE].milliseconds / one.milliseconds - 1)
        rows += [
            LinkSweepRow(
                kind="projected",
                architecture=name,
                link_bandwidth_bytes_per_s=device.link_bandwidth,
                geomean_speedup=geomean(values),
                cells=len(values),
            )
            for name, values in speedups.items()
            if name != BASELINE
        ]
    return rows
