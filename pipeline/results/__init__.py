"""Results: one typed row for each kind, written by who measures, read by who shows."""

from pipeline.results.engine import EngineResult
from pipeline.results.file import Result, Row, read, write
from pipeline.results.kinds import KINDS, Kind
from pipeline.results.perplexity import PerplexityResult
from pipeline.results.projection import ProjectionResult
from pipeline.results.tasks import TasksResult
from pipeline.results.training import TrainingResult
from pipeline.results.ttft import BASELINE, BOUND, TtftResult

RESULTS: tuple[type[Result], ...] = (
    TrainingResult,
    PerplexityResult,
    TasksResult,
    TtftResult,
    ProjectionResult,
    EngineResult,
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
    "Result",
    "Row",
    "TasksResult",
    "TrainingResult",
    "TtftResult",
    "read",
    "write",
]
