"""Write the report: tables, figures and one page, from the result files of a scale.

    python -m stages.report
    python -m stages.report scale=paper

Runs nothing and invents nothing: what has no result file is left out, with the command that makes it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.experiment.work import Work
    from pipeline.tracking import StageRun


def run(work: "Work", log: "StageRun") -> None:
    from pipeline.report import summary
    from pipeline.report.build import write_report
    from pipeline.report.table import badge

    report = write_report(work.config, work.fingerprint)
    folder = work.path("report")
    log.log_metrics(
        {
            f"kraken_speedup_{badge(item['kind'])}_{index}": item["value"]
            for index, item in enumerate(report["headline"]["values"])
        }
    )
    log.log_artifact(folder)
    print(summary(report))
    print(f"\nreport   {folder / 'index.html'}")


if __name__ == "__main__":
    from stages.entry import launch

    raise SystemExit(launch(run, __doc__ or ""))
