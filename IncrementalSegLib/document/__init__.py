"""The report as a document for a person: one list of sections, written as ``report.md`` and ``report.html``.

Needs neither torch nor matplotlib, so that the Slicer module can make the page of a finished job anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..models.contents import read_contents
from ..storage import write_text
from .content import Described, described, results
from .markdown import as_markdown
from .page import as_page

__all__ = ["job_page", "result_text", "write_document", "write_job_document"]


def write_document(
    report: Mapping[str, Any],
    model: Described,
    folder: Path,
    extra: Mapping[str, Mapping[str, float | None]] | None = None,
) -> None:
    """Write ``report.md`` and ``report.html`` into the folder of the report and its pictures.

    Args:
        report: content of ``report.json``.
        model: the model that the report is about, as it was saved.
        folder: a job folder, or what `api.evaluate` wrote.
        extra: further series of DSC by organ name, for example ``{"fine-tune": {"Liver": 0.41}}``.

    Raises:
        StorageError: the folder cannot be written.
    """
    document = described(report, model, folder, extra)
    write_text(folder / "report.md", as_markdown(document, folder))
    write_text(folder / "report.html", as_page(document))


def write_job_document(job: Path) -> Path:
    """Write both files of a finished job anew, with the synthetic images made since, and return the page's path.

    Raises:
        InputError: the job has no report.  PackageError: its model is damaged.  StorageError: it cannot be written.
    """
    write_document(_report_of(job), read_contents(job / "model"), job)
    return job / "report.html"


def job_page(job: Path, scans: bool = True) -> str:
    """The page of a finished job; without ``scans`` it shows no picture that was made of a patient's scan.

    Raises:
        InputError: the job has no report.  PackageError: its model is damaged.
    """
    return as_page(described(_report_of(job), read_contents(job / "model"), job, scans=scans))


def result_text(report: Mapping[str, Any]) -> str:
    """Verdict, sentences and table as Markdown, for a terminal."""
    return as_markdown(results(report))


def _report_of(job: Path) -> dict[str, Any]:
    path = job / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: this job has no report yet.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): the page cannot be made.") from error
    if not isinstance(report, dict):
        raise InputError(f"{path} is damaged (no report in it): the page cannot be made.")
    return report
