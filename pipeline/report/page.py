"""One HTML page that needs nothing else: styles and figures inside, no script, no network."""

from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from pipeline.report.style import Figure
from pipeline.report.table import Table, badge
from pipeline.results import KINDS


def page(body: dict[str, Any], tables: list[Table], figures: list[Figure]) -> str:
    """The report as HTML."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "."),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        report=body,
        tables=tables,
        figures=[(figure, Markup(figure.inline_svg())) for figure in figures],
        kinds=KINDS,
        badge=badge,
    )
