"""Write the report of a sweep, panel or run to a file, or log it on its MLflow run."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

from hmm_exp.errors import described, refusal
from hmm_exp.files import written_beside
from hmm_exp.interrupts import interrupt_of
from hmm_exp.report.collect import Subject, read_run, read_sweep
from hmm_exp.store.store import Store
from hmm_exp.tracking import ui
from hmm_exp.tracking.record import log_files
from hmm_exp.tracking.runs import is_panel, sweep_named, sweep_parent
from hmm_exp.tracking.ui import REPORT

if TYPE_CHECKING:
    from hmm_exp.report.page import Draw
    from hmm_exp.report.panel import PanelSubject

    AnySubject = Subject | PanelSubject


def read_any(client: MlflowClient, sweep_id: str) -> "AnySubject":
    """Read a finished sweep or panel, or the `latest`. Raises TrackingError if it is unknown."""
    sweep_id = sweep_named(client, sweep_id)
    if is_panel(sweep_parent(client, sweep_id)):
        from hmm_exp.report.panel import read_panel

        return read_panel(client, sweep_id)
    return read_sweep(client, sweep_id)


def report_line(store: Store, sweep_id: str, draw: "Draw | None" = None) -> str:
    """Make and log the report of a finished sweep; return a line for the terminal.

    `draw` draws the charts of its page. A failed report does not fail the sweep: the line gives the
    reason and the command to retry. Only errors of the machine, such as a full disk, are raised.
    """
    try:
        subject = read_any(store.client, sweep_id)
        log_report(store.client, subject, draw)
    except Exception as error:
        if refusal(error) or interrupt_of(error):
            raise
        reason = described(error)
        return f"warning: no report ({reason}); retry: python -m hmm_exp.report --sweep {sweep_id}"
    return f"report: {place(subject) or ui.ui_link(store, run_id=subject.main.info.run_id)}"


def make_report(client: MlflowClient, subject: "AnySubject", output: Path | None) -> str:
    """Write a report into a file, or log it on its run; return its place."""
    if output is not None:
        write_report(subject, output)
        return str(output)
    log_report(client, subject)
    return place(subject) or f"{REPORT} of run {subject.main.info.run_id}"


def log_report(client: MlflowClient, subject: "AnySubject", draw: "Draw | None" = None) -> None:
    """Log a report as an artifact of the sweep's parent, or of the run."""
    with tempfile.TemporaryDirectory() as folder:
        write_report(subject, Path(folder) / REPORT, draw)
        log_files(client, subject.main.info.run_id, Path(folder))


def write_report(subject: "AnySubject", path: Path, draw: "Draw | None" = None) -> None:
    """Write the page; an existing file is replaced only by a complete one."""
    if isinstance(subject, Subject):
        from hmm_exp.report.page import render

        page = render(subject, draw)
    else:
        from hmm_exp.report.panel_page import panel_page

        page = panel_page(subject)
    with written_beside(path) as part:
        part.write_text(page, encoding="utf-8")


def place(subject: "AnySubject") -> str | None:
    """Path of a logged report on this machine; None if a server keeps it."""
    root = subject.main.info.artifact_uri or ""
    if not root.startswith("file:"):
        return None
    path = Path(local_file_uri_to_path(root)) / REPORT
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


__all__ = ["make_report", "read_any", "read_run", "report_line"]
