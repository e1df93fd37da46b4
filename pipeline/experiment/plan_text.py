"""A plan as text for a terminal."""

from pipeline.experiment.experiment import Experiment
from pipeline.experiment.plan import Plan


def plan_text(experiment: Experiment, plan: Plan) -> str:
    """What would run, on what; what is done or stale; and what this machine lacks.

    A stage that runs once a model shows its own plan too, as does one that is asked alone.
    """
    config = experiment.config
    title = f"experiment {config.experiment.name}: {config.experiment.title}" if config.experiment else "one stage"
    lines = [title, f"scale {config.scale.name}: {config.scale.title}"]
    for stage in experiment.stages:
        if hasattr(stage.script, "plan") and (stage.scope == "model" or len(experiment.stages) == 1):
            lines += ["", stage.script.plan(experiment.work_of(stage))]
    pieces = list(experiment.work())
    lines += ["", f"models     {', '.join(one.model.name for one in experiment.configs)}"]
    lines += [f"stages     {', '.join(stage.name for stage in experiment.stages)} ({len(pieces)} pieces of work)"]
    states = [(work.name, work.state()) for work in pieces if not work.stage.always]
    done = [name for name, state in states if state.name == "done"]
    lines += [f"done       {', '.join(done)}"] if done else []
    lines += [f"stale      {name}: {state.why}" for name, state in states if state.name == "stale"]
    lines += ["", *(f"note: {note}" for note in plan.notes)] if plan.notes else []
    if plan.left_out:
        lines += ["", "left out here:", *(f"  - {one}" for one in plan.left_out)]
    if plan.faults:
        lines += ["", "this machine lacks:", *(f"  - {fault}" for fault in plan.faults)]
    else:
        lines += ["", "nothing is missing: the same command without debug=dry_run runs it"]
    return "\n".join(lines)
