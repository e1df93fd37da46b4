"""Write the report: tables, figures and one page, from the result files of a scale.

    python -m stages.report
    python -m stages.report scale=paper

Runs nothing and invents nothing: what has no result file is left out, with the command that makes it.
"""

from pathlib import Path

from pipeline.config import Config
from pipeline.experiment.stages import BY_NAME
from pipeline.tracking import StageRun
from stages.entry import launch


def run(config: Config, log: StageRun) -> None:
    from pipeline.report import summary
    from pipeline.report.build import write_report
    from pipeline.results.tasks import against_baseline

    report = write_report(config, BY_NAME["report"].fingerprint(config), against_baseline)
    folder = Path(config.paths.report)
    log.log_metrics(
        {
            f"kraken_speedup_{item['kind']}_{index}": item["value"]
            for index, item in enumerate(report["headline"]["values"])
        }
    )
    log.log_artifact(folder)
    if config.experiment is None:  # an experiment prints the summary at its own end
        print(summary(report))
    print(f"written  {folder / 'index.html'}")


if __name__ == "__main__":
    raise SystemExit(launch(run, __doc__ or ""))
