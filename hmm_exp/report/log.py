"""Making a report and putting it where it belongs: on the run, or into a file."""

import tempfile
from pathlib import Path

from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path

from hmm_exp.errors import described, refusal
from hmm_exp.files import written_beside
from hmm_exp.report.collect import Subject, read_run, read_sweep
from hmm_exp.store.store import Store
from hmm_exp.tracking import ui
from hmm_exp.tracking.record import log_files
from hmm_exp.tracking.ui import REPORT


def report_line(store: Store, sweep_id: str) -> str:
    """Make and log the report of a judged sweep; gives the line that says where it is.

    A report that cannot be made costs no sweep: the line then says why and how to try again. What
    the machine refuses, such as a full disk, is raised, because it costs what comes after too.
    """
    try:
        subject = read_sweep(store.client, sweep_id)
        log_report(store.client, subject)
    except Exception as error:  # whatever else it is
        if refusal(error):
            raise
        reason = described(error)
        return f"warning: no report ({reason}); again: python -m hmm_exp.report --sweep {sweep_id}"
    return f"report: {place(subject) or ui.ui_link(store, run_id=subject.main.info.run_id)}"


def make_report(client: MlflowClient, subject: Subject, output: Path | None) -> str:
    """Write a report into a file, or log it on its run; gives where it is."""
    if output is not None:
        write_report(subject, output)
        return str(output)
    log_report(client, subject)
    return place(subject) or f"{REPORT} of run {subject.main.info.run_id}"


def log_report(client: MlflowClient, subject: Subject) -> None:
    """Log a report as an artifact of the sweep's parent, or of the run."""
    with tempfile.TemporaryDirectory() as folder:
        write_report(subject, Path(folder) / REPORT)
        log_files(client, subject.main.info.run_id, Path(folder))


def write_report(subject: Subject, path: Path) -> None:
    """Write the page beside `path` and rename it, so that no half-written one exists."""
    from hmm_exp.report.page import render

    with written_beside(path) as part:
        part.write_text(render(subject), encoding="utf-8")


def place(subject: Subject) -> str | None:
    """Where a logged report is on this machine, None where a server keeps it."""
    root = subject.main.info.artifact_uri or ""
    if not root.startswith("file:"):
        return None
    path = Path(local_file_uri_to_path(root)) / REPORT
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


__all__ = ["make_report", "read_run", "read_sweep", "report_line"]
