"""The program that compiles what judges a fit while another process compiles the fit."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.warm import environment_of_a_user
from tests.watching import until

on_linux = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="children are listed on Linux"
)

SEEN = """
import sys
from dataclasses import replace
from numba.core.dispatcher import Dispatcher
from hmm_exp.experiment.first_use import compile_the_rest, small_run
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run


def used():
    mine = [vars(module) for name, module in list(sys.modules.items()) if name[:7] == "hmm_exp"]
    found = {one for names in mine for one in names.values() if isinstance(one, Dispatcher)}
    entries = [one for one in found if one.targetoptions.get("nogil") and one.signatures]
    return {(one.py_func.__name__, str(one.signatures)) for one in entries}


compile_the_rest()
before = used()
settings = small_run("native")
settings.model.n_states = 3
run(prepare(settings))
print(len(before), *sorted({name for name, _ in used() - before}))
"""


def test_a_fit_uses_nothing_more_than_what_is_left_of_its_em():
    said = subprocess.run(
        [sys.executable, "-c", SEEN], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(said[0]) > 15
    parts = ["filter", "log_prior", "smooth", "take", "update", "whiten"]
    assert said[1:] == ["_fill", "_moments", "_run", *parts]


def test_a_process_that_warms_up_has_loaded_what_draws_and_leaves_nothing(tmp_path):
    program = """
import sys
from hmm_exp.experiment import first_use
first_use.warm_up()
print("hmm_exp.figures" in sys.modules, "hmmlearn.hmm" in sys.modules)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]
    assert not list(tmp_path.iterdir())


def test_it_ends_with_the_process_that_began_it():
    program = [sys.executable, "-m", "hmm_exp.experiment.first_use"]
    begun = subprocess.Popen(program, stdin=subprocess.PIPE)
    assert begun.stdin is not None
    begun.stdin.close()
    assert begun.wait(timeout=120) == 0


@on_linux
def test_a_single_run_on_a_new_machine_compiles_in_two_processes(tmp_path):
    with new_machine(tmp_path) as run:
        until(
            lambda: any(
                "hmm_exp.experiment.first_use" in words for words in children_of(run.pid).values()
            )
        )
    assert (tmp_path / "said").read_text().count("compiling") == 1


@on_linux
def test_the_process_of_a_sweep_on_a_new_machine_compiles_together_with_its_copy(tmp_path):
    with new_machine(tmp_path, "-m", "model.n_states=2,3") as sweep:
        (worker,) = until(lambda: children_of(sweep.pid))
        (copy,) = until(lambda: children_of(worker))
        both = children_of(sweep.pid)[worker], children_of(worker)[copy]
        compiled = [path.name for path in (tmp_path / "cache").rglob("*.nbc")]
        until(lambda: "compiling" in (tmp_path / "said").read_text())
    assert ["hmm_exp.sweep.worker" in words for words in both] == [True, True]
    assert not any("._run-" in name for name in compiled)
    assert (tmp_path / "said").read_text().count("compiling") == 1


@contextmanager
def new_machine(folder: Path, *words: str) -> Iterator[subprocess.Popen]:
    """A run on a machine without compiled code, which is interrupted at the end."""
    environment = environment_of_a_user(XDG_CACHE_HOME=str(folder / "cache"))
    command = [sys.executable, "-m", "hmm_exp.train", "data.n_bars=2500", *words]
    with (folder / "said").open("w") as said:
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    try:
        yield run
    finally:
        run.send_signal(signal.SIGINT)
        run.wait()


def children_of(process: int) -> dict[int, str]:
    """Command lines of the children of a process, by its threads."""
    lists = [path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children")]
    pids = [int(pid) for pids in lists for pid in pids]
    return {pid: Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in pids}
