"""What an experiment would do, what is done already and what this machine lacks: debug=dry_run."""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files
from pipeline.errors import PipelineError
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.stage import Stage
from pipeline.experiment.work import Work, makers


@dataclass
class Plan:
    """`faults` keep the experiment from running here, `left_out` only its optional stages from being done; `notes` are
    to be borne in mind."""

    faults: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_plan(experiment: Experiment) -> Plan:
    """Look at the machine and at what is there; touches nothing."""
    plan = Plan(_input_faults(experiment))
    for stage in experiment.stages:
        if hasattr(stage.script, "notes"):
            plan.notes += [f"{stage.name}: {note}" for note in stage.script.notes(experiment.work_of(stage))]
        todo = [work for work in experiment.work_of(stage) if stage.always or not work.is_done()]
        if todo and hasattr(stage.script, "check"):
            _check(stage, todo, plan)
    plan.faults = list(dict.fromkeys(plan.faults))  # stages may meet the same
    return plan


def _check(stage: Stage, todo: list[Work], plan: Plan) -> None:
    """Add what the stage's own check finds."""
    try:
        lacks = stage.script.check(todo)
    except PipelineError as error:
        plan.faults.append(str(error))
        return
    (plan.left_out if stage.optional else plan.faults).extend(f"{stage.name}: {lack}" for lack in lacks)


def _input_faults(experiment: Experiment) -> list[str]:
    """Files that a stage reads and that neither exist nor are made by an earlier stage of the experiment."""
    made = [Path(folder) for folder in experiment.config.paths.model_dump().values()]  # a run makes these itself
    faults = []
    for work in experiment.work():
        faults += [
            _missing(path, work)
            for path in work.paths(*work.stage.inputs)
            if not path.exists() and path not in made and not any(path in one.parents for one in made)
        ]
        made += work.paths(*work.stage.outputs)
    return list(dict.fromkeys(faults))


def _missing(path: Path, reader: Work) -> str:
    writes = (work.command for work in makers(reader.composed) if path in work.paths(*work.stage.outputs))
    others = ", ".join(one.name for one in files.variants(path))
    there = f" (there are: {others})" if others else ""
    return f"{path} is missing{there}: run {next(writes, 'another stage')} with the same overrides first"
