"""The one list of stages: name, module, what identifies their work, files in and out.

dvc.yaml is tested against it, and `python -m pipeline` runs it from top to bottom.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config import Config
from pipeline.provenance import content_mark


@dataclass(frozen=True)
class Stage:
    """One step of an experiment.

    `inputs` and `outputs` are templates over {paths}, {scale}, {data}, {model}, {evaluation},
    {engine}, {tp_size}, {benchmark}, {timing}, {hardware}; the first output is a JSON file that carries the
    fingerprint of `groups` and the marks of `inputs`, by which finished work is recognised.
    """

    name: str
    title: str
    scope: Literal["experiment", "model"]  # once per experiment, or once per model of it
    groups: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    always: bool = False  # cheap, or looks for itself what has changed: never passed over
    overrides: tuple[str, ...] = ()  # groups this stage takes differently unless the user names them

    @property
    def module(self) -> str:
        return f"stages.{self.name}"

    def paths(self, templates: tuple[str, ...], config: Config) -> list[Path]:
        return [Path(template.format(**placeholders(config))) for template in templates]

    def result(self, config: Config) -> Path:
        """The JSON file that says whether this work is done."""
        return self.paths(self.outputs, config)[0]

    def fingerprint(self, config: Config) -> str:
        return config.fingerprint(*self.groups)

    def input_marks(self, config: Config) -> dict[str, str]:
        """What each input folder holds now: another text, or a model trained anew, makes old work unfinished."""
        return {str(path): content_mark(path) for path in self.paths(self.inputs, config)}


def placeholders(config: Config) -> dict[str, str]:
    """What a path template may mention."""
    folders, link = config.paths, config.link.name
    return {
        "data": f"{folders.data}/{config.data.name}",
        "trained": f"{folders.trained}/{config.scale.name}/{config.model.name}",
        "results": f"{folders.results}/{config.scale.name}",
        "model_results": f"{folders.results}/{config.scale.name}/{config.model.name}",
        "engine": f"{folders.engines}/{config.model.name}-tp{config.engine.tp_size}-{config.engine.name}",
        "evaluation": config.evaluation.name,
        "benchmark": config.benchmark.name,
        "timing": "-".join([config.benchmark.name, *([link] if link != "loopback" else [])]),
        "hardware": config.hardware.name,
        "report": folders.report,
    }


MODEL = ("model", "data", "training")

STAGES: tuple[Stage, ...] = (
    Stage(
        "prepare_data",
        "text to token shards",
        "experiment",
        ("data",),
        (),
        ("{data}/manifest.json", "{data}"),
        always=True,  # edited source files are seen only by reading them
    ),
    Stage(
        "train",
        "train one model with Ray Train",
        "model",
        MODEL,
        ("{data}",),
        ("{model_results}/training.json", "{trained}"),
    ),
    Stage(
        "evaluate_perplexity",
        "perplexity on the validation split",
        "model",
        (*MODEL, "evaluation"),
        ("{data}", "{trained}"),
        ("{model_results}/perplexity.json",),
    ),
    Stage(
        "evaluate_superglue",
        "SuperGLUE through lm-evaluation-harness",
        "model",
        (*MODEL, "evaluation"),
        ("{trained}",),
        ("{model_results}/{evaluation}.json",),
    ),
    Stage(
        "build_engine",
        "one inference engine a rank",
        "model",
        (*MODEL, "engine"),
        ("{trained}",),
        ("{engine}/engine.json", "{engine}"),
    ),
    Stage(
        "benchmark_ttft",
        "Time To First Token over real ranks",
        "experiment",
        ("benchmark", "link", "hardware"),
        (),
        ("{results}/ttft-{timing}.json",),
    ),
    Stage(
        "project_ttft",
        "TTFT projected for other hardware",
        "experiment",
        ("benchmark", "hardware", "reference"),
        (),
        ("{results}/projection-{hardware}-{benchmark}.json",),
        overrides=("benchmark=ttft_paper", "benchmark.tp_sizes=[4,8]"),  # the whole grid, whatever is timed here
    ),
    Stage(
        "report",
        "tables, figures and the page",
        "experiment",
        ("reference",),
        ("{results}",),
        ("{report}/report.json", "{report}"),
        always=True,
    ),
)

BY_NAME = {stage.name: stage for stage in STAGES}
