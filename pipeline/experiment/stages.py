"""The one list of stages. dvc.yaml is tested against it, and `python -m pipeline` runs it from top to bottom."""

from pipeline.config import Config
from pipeline.experiment.identity import arm_values, projected_values, timed_values, weighed_values
from pipeline.experiment.stage import Stage
from pipeline.study.settings import TRAINING


def runs_built_engines(config: Config) -> bool:
    return config.benchmark.engine != "torch"


def models_the_link(config: Config) -> bool:
    return config.benchmark.protocol == "one_rank"


def runs_tensorrt_llm(config: Config) -> bool:
    return config.benchmark.engine == "tensorrt_llm"


def passes_links(config: Config) -> bool:
    return not runs_built_engines(config) and not models_the_link(config)


MODEL = ("model", "data", "training")
STUDY = ("data", *(f"training.{field}" for field in TRAINING), "study", "sweep")
GRID = tuple(  # all that a projection reads of a benchmark
    f"benchmark.{name}"
    for name in ("name", "architectures", "shapes", "derived", "contexts", "tp_sizes", "batch_sizes", "dtype")
)
PERPLEXITY = ("perplexity_protocol", "random_windows", "random_windows_seed")
TASKS = (
    *("name", "tasks", "task_dir", "n_shot", "data_dir", "limit"),
    *("bootstrap_iters", "seed", "baseline", "checkpoint"),
)

STAGES: tuple[Stage, ...] = (
    Stage(
        "prepare_data",
        "text to token shards",
        "experiment",
        settings=("data",),
        inputs=(),
        outputs=("manifest", "data"),
        always=True,  # edited source files are seen only by reading them
    ),
    Stage(
        "train",
        "train one model with Ray Train",
        "model",
        settings=MODEL,
        inputs=("data", "branched"),
        outputs=("training", "curve", "trained"),
    ),
    Stage(
        "search_recipes",
        "the rate and initial scale at which every arm of a study learns most",
        "experiment",
        settings=STUDY,
        resolve=arm_values,
        inputs=("data",),
        outputs=("search",),
        on_request=True,
    ),
    Stage(
        "compare_quality",
        "train every arm of a study from several seeds on the same tokens",
        "experiment",
        settings=STUDY,
        resolve=arm_values,
        inputs=("data", "search"),
        outputs=("quality",),
        on_request=True,
    ),
    Stage(
        "weigh_speed",
        "loss against TTFT of a study's arms, measured and projected",
        "experiment",
        settings=(
            *(*STUDY, "benchmark", "link", "hardware", "reference"),
            *("cluster.device", "cluster.threads_per_rank", "cluster.pin_cores"),
        ),
        resolve=weighed_values,
        inputs=("quality",),
        outputs=("trade",),
        on_request=True,
    ),
    Stage(
        "evaluate_perplexity",
        "perplexity on the validation split",
        "model",
        settings=(*MODEL, *(f"evaluation.{name}" for name in PERPLEXITY)),
        inputs=("data", "trained"),
        outputs=("perplexity",),
    ),
    Stage(
        "evaluate_superglue",
        "SuperGLUE through lm-evaluation-harness",
        "model",
        settings=(
            *MODEL,
            *(f"evaluation.{name}" for name in TASKS),
            *("reference.superglue_3shot", "reference.superglue_rows"),  # shown beside our scores
        ),
        inputs=("scored", "task_files", "baseline"),
        outputs=("tasks",),
    ),
    Stage(
        "build_engine",
        "one inference engine a rank",
        "model",
        settings=(*MODEL, "engine"),
        inputs=("weights",),
        outputs=("engine_description", "engine"),
        optional=True,
    ),
    Stage(
        "benchmark_ttft",
        "Time To First Token over real ranks",
        "experiment",
        settings=("benchmark", "cluster.device", "cluster.threads_per_rank", "cluster.pin_cores"),
        also={  # built engines count by their content
            "engine.environment": runs_tensorrt_llm,
            "engine.environment_path": runs_tensorrt_llm,
            "hardware": models_the_link,
            "reference": models_the_link,  # published times, to which the link's values are fitted
            "link": passes_links,
        },
        resolve=timed_values,
        inputs=("timed", "compared"),
        outputs=("timing", "surface"),
    ),
    Stage(
        "project_ttft",
        "TTFT projected for other hardware",
        "experiment",
        settings=(*GRID, "hardware", "reference"),
        resolve=projected_values,
        inputs=(),
        outputs=("projection",),
        takes={"benchmark": "ttft_paper"},  # the whole grid, whatever is timed here
    ),
    Stage(
        "report",
        "tables, figures and the page",
        "experiment",
        settings=("reference",),
        inputs=("results", "engines"),
        outputs=("report_body", "report"),
        always=True,
    ),
)

BY_NAME = {stage.name: stage for stage in STAGES}
