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
import numpy as np
from mlflow.tracking import MlflowClient

from hmm_exp.config import GateConfig
from hmm_exp.judge.gains import estimate_gain
from hmm_exp.registry.promotion import promote, rollback
from hmm_exp.serving.mlflow_model import sample_bars
from tests.small_detector import small_detector


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


def prime() -> None:
    """Load what every child would load anew: compiled kernels and MLflow's stores."""
    detector = small_detector()
    detector.filter(sample_bars(detector))
    estimate_gain(np.random.default_rng(0).normal(size=500))


if __name__ == "__main__":
    prime()
    mlflow.set_tracking_uri(sys.argv[1])
    print(json.dumps([end_of(job, sys.argv[1]) for job in json.loads(sys.argv[2])]))
