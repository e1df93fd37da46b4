"""Score a model on SuperGLUE, or on any task of the lm-evaluation-harness.

python -m stages.evaluate_superglue model=demo_kraken_4way evaluation=superglue_3shot
python -m stages.evaluate_superglue model=… evaluation.data_dir=FOLDER      SuperGLUE's own JSONL files
python -m stages.evaluate_superglue model=… evaluation.data_dir=hub         aps/super_glue
python -m stages.evaluate_superglue model=gpt2 evaluation.checkpoint=FOLDER a Hugging Face GPT-2
python -m stages.evaluate_superglue model=… evaluation=lm_eval 'tasks=[lambada_openai,hellaswag]'
"""

from typing import TYPE_CHECKING

from pipeline import provenance
from pipeline.config import Config
from pipeline.experiment.stages import BY_NAME
from pipeline.tracking import StageRun
from stages.entry import launch

if TYPE_CHECKING:
    from pipeline.results import TasksResult


def run(config: Config, log: StageRun) -> None:
    from pipeline.files import check_writable

    stage = BY_NAME["evaluate_superglue"]
    path = stage.result(config)
    check_writable(path.parent)
    found = _named(config) if _is_named(config) else _superglue(config)
    provenance.write_result(path, found.body(), stage.fingerprint(config), stage.input_marks(config))
    log.log_metrics(_metrics(found))
    log.log_artifact(path)
    print(f"written  {path}")


def _is_named(config: Config) -> bool:
    from pipeline.evaluation.superglue.tasks import TASK_BY_NAME

    return config.evaluation.name == "lm_eval" or any(name not in TASK_BY_NAME for name in config.evaluation.tasks)


def _superglue(config: Config) -> "TasksResult":
    from pipeline.evaluation.superglue.body import complete, find_inputs
    from pipeline.evaluation.superglue.data import overall
    from pipeline.evaluation.superglue.text import superglue_table

    source, data = find_inputs(config)  # importing the harness takes seconds: what is missing is said before
    from pipeline.evaluation.harness.run import score_superglue

    records, cost = score_superglue(config, source, data)
    found = complete(config, source, records, overall(data), cost)
    print(superglue_table(found))
    return found


def _named(config: Config) -> "TasksResult":
    from pipeline.errors import ConfigError
    from pipeline.evaluation.scoring.source import find_source

    if not config.evaluation.tasks:
        raise ConfigError("tasks=[]: evaluation=lm_eval needs tasks, as 'tasks=[lambada_openai,hellaswag]'")
    source = find_source(config)
    from pipeline.evaluation.harness.run import score_named
    from pipeline.evaluation.superglue.body import named
    from pipeline.evaluation.superglue.text import tasks_table

    found = named(config, source, score_named(config, source))
    print(tasks_table(found))
    return found


def _metrics(found: "TasksResult") -> dict[str, float]:
    scores = {task: row.score for task, row in found.tasks.items()} | {"mean": found.mean}
    return {f"{found.evaluation}.{task}": score for task, score in scores.items() if score is not None}


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__ or ""))
