"""Results: one typed row for each kind, written by who measures, read by who shows."""

from pipeline.results.cell import BASELINE, BOUND
from pipeline.results.engine import EngineResult
from pipeline.results.file import Result, Row, read, write
from pipeline.results.kinds import KINDS, Kind
from pipeline.results.perplexity import PerplexityResult
from pipeline.results.projection import ProjectionResult
from pipeline.results.quality import QualityResult
from pipeline.results.search import SearchResult
from pipeline.results.surface import SurfaceResult
from pipeline.results.tasks import TasksResult
from pipeline.results.trade import TradeResult
from pipeline.results.training import TrainingResult
from pipeline.results.ttft import TtftResult

RESULTS: tuple[type[Result], ...] = (
    TrainingResult,
    PerplexityResult,
    TasksResult,
    TtftResult,
    ProjectionResult,
    EngineResult,
    SearchResult,
    QualityResult,
    TradeResult,
    SurfaceResult,
)

__all__ = [
    "BASELINE",
    "BOUND",
    "KINDS",
    "RESULTS",
    "EngineResult",
    "Kind",
    "PerplexityResult",
    "ProjectionResult",
    "QualityResult",
    "Result",
    "Row",
    "SearchResult",
    "SurfaceResult",
    "TasksResult",
    "TradeResult",
    "TrainingResult",
    "TtftResult",
    "read",
    "write",
]
