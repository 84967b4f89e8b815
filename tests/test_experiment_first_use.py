"""The program that compiles what judges a fit while another process compiles the fit."""

import os
import subprocess
import sys

SEEN = """
import sys
from dataclasses import replace
from numba.core.dispatcher import Dispatcher
from hmm_exp.experiment.first_use import small_run
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import run


def used():
    mine = [vars(module) for name, module in list(sys.modules.items()) if name[:7] == "hmm_exp"]
    found = {one for names in mine for one in names.values() if isinstance(one, Dispatcher)}
    entries = [one for one in found if one.targetoptions.get("nogil") and one.signatures]
    return {(one.py_func.__name__, str(one.signatures)) for one in entries}


settings = small_run()
run(prepare(settings))
before = used()
settings.model.engine = "native"
settings.model.n_states = 3
run(prepare(settings))
print(len(before), *sorted({name for name, _ in used() - before}))
"""


def test_a_fit_by_the_own_engine_uses_nothing_more_than_its_em():
    said = subprocess.run(
        [sys.executable, "-c", SEEN], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(said[0]) > 15
    parts = ["filter", "log_prior", "plan", "smooth", "take", "update", "whiten"]
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
