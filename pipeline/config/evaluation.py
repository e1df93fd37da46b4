"""How a trained model is scored."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from pipeline.config.group import Group


class EvaluationConfig(Group):
    """Perplexity on the validation split, and tasks of the lm-evaluation-harness."""

    name: str = Field(description="name of the config file, and of the result file for tasks")
    perplexity_protocol: Literal["full", "random_windows"] = Field(
        "full", description="the whole validation split once, or the paper's random windows"
    )
    random_windows: PositiveInt = Field(4000, description="windows drawn by random_windows")
    tasks: list[str] = Field(default_factory=list, description="harness tasks; empty: the eight of SuperGLUE")
    n_shot: NonNegativeInt = Field(3, description="worked examples in front of each question")
    data_dir: str | None = Field(
        None, description="folder in SuperGLUE's own JSONL form; null: the small set shipped here; hub: download"
    )
    limit: NonNegativeInt = Field(0, description="questions per task at most; 0: all")
    bootstrap_iters: PositiveInt = Field(1000, description="resamples behind bootstrap standard errors")
    seed: NonNegativeInt = Field(1234, description="seed of few-shot sampling and of the bootstrap")
    baseline: str | None = Field(None, description="model that paired differences are taken against")
