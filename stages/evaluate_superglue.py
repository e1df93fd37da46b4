"""Score a model on SuperGLUE, or on any task of the lm-evaluation-harness.

python -m stages.evaluate_superglue model=demo_kraken_4way evaluation=superglue_3shot
python -m stages.evaluate_superglue model=… evaluation.data_dir=FOLDER      SuperGLUE's own JSONL files
python -m stages.evaluate_superglue model=… evaluation.data_dir=hub         aps/super_glue
python -m stages.evaluate_superglue model=gpt2 evaluation.checkpoint=FOLDER a Hugging Face GPT-2
python -m stages.evaluate_superglue model=… evaluation=lm_eval 'tasks=[lambada_openai,hellaswag]'
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.experiment.work import Work
    from pipeline.results import TasksResult
    from pipeline.tracking import StageRun

SCORING = "pipeline.evaluation.harness.run"


def check(work: "list[Work]") -> list[str]:
    from pipeline.data.requirements import online
    from pipeline.evaluation.requirements import missing_gpus
    from pipeline.evaluation.scoring.source import missing_checkpoints
    from pipeline.evaluation.superglue.data import missing_data

    cluster = work[0].config.cluster
    return [
        *missing_gpus(cluster.device, cluster.evaluation_tp_size),
        *missing_checkpoints([one.config for one in work], online),
        *missing_data(work[0].config, online),
    ]


def run(work: "Work", log: "StageRun") -> None:
    from pipeline.files import check_writable

    check_writable(work.result.parent)
    found = _named(work) if _is_named(work.config) else _superglue(work)
    path = work.write(found)
    log.log_metrics(_metrics(found))
    log.log_artifact(path)
    print(f"written  {path}")


def _is_named(config: "Config") -> bool:
    from pipeline.evaluation.superglue.tasks import TASK_BY_NAME

    return config.evaluation.name == "lm_eval" or any(name not in TASK_BY_NAME for name in config.evaluation.tasks)


def _superglue(work: "Work") -> "TasksResult":
    from pipeline.evaluation.superglue.body import complete, find_inputs
    from pipeline.evaluation.superglue.data import overall
    from pipeline.evaluation.superglue.text import superglue_table

    config = work.config
    source, data = find_inputs(config, work.path("trained"))  # what is missing is said before the harness' slow import
    from pipeline.evaluation.harness.run import score_superglue

    records, cost = score_superglue(config, source, data, work.code_of(SCORING))
    found = complete(config, source, records, overall(data), cost, next(iter(work.paths("baseline")), None))
    print(superglue_table(found))
    return found


def _named(work: "Work") -> "TasksResult":
    from pipeline.errors import ConfigError
    from pipeline.evaluation.scoring.source import find_source

    config = work.config
    if not config.evaluation.tasks:
        raise ConfigError("tasks=[]: evaluation=lm_eval needs tasks, as 'tasks=[lambada_openai,hellaswag]'")
    source = find_source(config, work.path("trained"))
    from pipeline.evaluation.harness.run import score_named
    from pipeline.evaluation.superglue.body import named
    from pipeline.evaluation.superglue.text import tasks_table

    found = named(config, source, score_named(config, source, work.code_of(SCORING)))
    print(tasks_table(found))
    return found


def _metrics(found: "TasksResult") -> dict[str, float]:
    scores = {task: row.score for task, row in found.tasks.items()} | {"mean": found.mean}
    return {f"{found.evaluation}.{task}": score for task, score in scores.items() if score is not None}


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
