"""Promotions and rollbacks that are killed at a step, each in a process of its own.

    python -m tests.killed_promotion <store uri> '<JSON list of jobs>'

A job is {"name": registry, "run": id or null for a rollback, "step": method of MLflow's client,
"when": "before" or "after"}. Prints, as a JSON list, by which signal each process ended.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.tracking import MlflowClient

from hmm_exp.config import GateConfig
from hmm_exp.tracking.registry import promote, rollback


def deadly(step: Callable[..., Any], when: str) -> Callable[..., Any]:
    """The same step, which kills this process before or after it is done."""

    def killing(*args: Any, **kwargs: Any) -> None:
        if when == "after":
            step(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return killing


def work(job: dict[str, str], uri: str) -> None:
    """Do a job in this process, up to the step that kills it."""
    client = MlflowClient(uri)
    setattr(MlflowClient, job["step"], deadly(getattr(MlflowClient, job["step"]), job["when"]))
    if job["run"] is None:
        rollback(client, job["name"])
    else:
        promote(client, job["run"], registry_name=job["name"], gate=GateConfig())


def end_of(job: dict[str, str], uri: str) -> int:
    """Signal that ended the job's own process; 0 when it came to its end."""
    child = os.fork()  # the imports are done once, the store is opened by the child
    if child == 0:
        try:
            work(job, uri)
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    mlflow.set_tracking_uri(sys.argv[1])
    print(json.dumps([end_of(job, sys.argv[1]) for job in json.loads(sys.argv[2])]))
