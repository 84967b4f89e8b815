"""Load or compile all that a run uses, by a small run.

    python -m hmm_exp.experiment.first_use

The first run on a machine compiles the fit and what judges it, which take about as long as each
other. This program compiles the second, by a small run whose fit is hmmlearn's, and some of the
first, so that the process that fits finds the code on disk. It ends with the process that started
it. In a sweep a copy of the process that fits does the same, without two seconds of imports.

A process that waits for its first cell makes the small run, too (`warm_up`): later imports and the
loading of compiled code take it two seconds.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hmm_exp.config import Config
from hmm_exp.experiment.artifacts import write_artifacts
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run
from hmm_exp.experiment.source import forget_sources
from hmm_exp.hmm.em.run import announce_compilation, compile_plan
from hmm_exp.hmm.params import GaussianParams

_N_BARS = 600  # the types of the code do not depend on it
_begun: list[subprocess.Popen] = []  # keeps their input open, by which they see that we are here


def compile_beside(begin: Callable[[], object] | None = None) -> None:
    """Share the compilation with another process if the next fit has to compile.

    Of processes that begin together, one does. `begin` lets another process call
    `compile_the_rest`; by default it is this program.
    """
    if announce_compilation():
        (begin or _begin_program)()


def compile_the_rest() -> None:
    """Compile what judges a fit, and the part of a fit that takes longest but for its E step."""
    one = np.ones((1, 1))
    compile_plan(GaussianParams(startprob=np.ones(1), transmat=one, means=one, covars=one))
    run(prepare(small_run()))


def warm_up() -> None:
    """Load all that a run, its files and its figures use."""
    with tempfile.TemporaryDirectory() as folder:
        write_artifacts(run(prepare(small_run("native"))), Path(folder))
    forget_sources()


def small_run(engine: str = "hmmlearn") -> Config:
    """Settings of a run that compiles all that a run uses, of the fit only what `engine` needs."""
    settings = Config()
    settings.data.n_bars = _N_BARS
    settings.model.engine = engine
    settings.model.n_states, settings.model.n_init = 2, 1
    return settings


def main() -> None:
    """Compile; exit early if the parent process ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    compile_the_rest()


def _begin_program() -> None:
    program = [sys.executable, "-m", __name__]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    _begun.append(
        subprocess.Popen(program, process_group=0, stdin=pipe, stdout=nowhere, stderr=nowhere)
    )


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
