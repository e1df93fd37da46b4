"""The report: tables, figures and one page, from result files alone."""

from pipeline.report.summary import summary

__all__ = ["summary"]
