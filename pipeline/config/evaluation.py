"""How a trained model is scored."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from pipeline.config.group import Group, Name, Seed


class EvaluationConfig(Group):
    """Perplexity on the validation split, and tasks of the lm-evaluation-harness."""

    name: Name = Field(description="name of the config file, and of the result file for tasks")
    perplexity_protocol: Literal["full", "random_windows"] = Field(
        "full", description="the whole validation split once, or the paper's random windows"
    )
    random_windows: PositiveInt = Field(4000, description="windows drawn by random_windows")
    random_windows_seed: Seed = Field(1337, description="seed of random_windows, nanoGPT's by default")
    tasks: list[str] = Field(default_factory=list, description="harness tasks; empty: the eight of SuperGLUE")
    task_dir: str | None = Field(None, description="folder with more harness tasks as YAML; null: its own")
    n_shot: NonNegativeInt = Field(3, description="worked examples in front of each question")
    data_dir: str | None = Field(
        None, description="folder in SuperGLUE's own JSONL form; null: the small set shipped here; hub: download"
    )
    limit: NonNegativeInt = Field(0, description="questions per task at most; 0: all")
    bootstrap_iters: PositiveInt = Field(1000, description="resamples behind bootstrap standard errors")
    seed: Seed = Field(1234, description="seed of few-shot sampling and of the bootstrap")
    baseline: Name | None = Field(None, description="model that paired differences are taken against")
    checkpoint: str | None = Field(
        None,
        description="score a Hugging Face GPT-2 instead of a trained model: its folder, a folder of folders gpt2, "
        "gpt2-medium, gpt2-large, a hub id, or hub: the public checkpoint of the model's name",
    )
