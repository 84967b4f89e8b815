"""Real faults inside real processes: Python imports this file when its folder is on PYTHONPATH.

A cell with one of the seeds of FAULTS meets that fault in its fit, or of IN_WRITING after it.
KILL_AT names a moment at which the watching process, or that of KILL_PID, is killed by SIGKILL,
once (the file KILL_ONCE is made then), at the second cell that gets there. With KILL_PARENT its
parent, a launcher's main process, is killed in the same moment.

LOST_ANSWER names a function of LOST, `module:name`, that does its work LOST_TIMES times (1) in a
process and then fails as if the store's answer to it were lost.

INTERRUPTED names a function of INTERRUPTIBLE, `module:name`, in which Ctrl-C arrives; as in a
library that cleans up what is half made, a second error hides the interrupt. SWALLOWED names one
in which nothing is left of it.
"""

import importlib.machinery
import itertools
import os
import signal
import sys
import time
from pathlib import Path


def _raise():
    raise RuntimeError("a fault on purpose")


def _exhaust():
    import resource

    import numpy as np

    resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
    np.ones(2**33)


FAULTS = {
    901: _raise,
    902: lambda: sys.exit(3),
    903: lambda: time.sleep(600),
    904: lambda: os.kill(os.getpid(), signal.SIGKILL),
    905: _exhaust,
    910: lambda: os.kill(os.getpid(), signal.SIGSTOP),
}
# With the figures, after the fit, in a copy of the process that fitted.
IN_WRITING = {906: _raise, 907: FAULTS[904], 908: FAULTS[903], 909: lambda: time.sleep(4)}
parents = {}  # the watching process of this one, or of the one this is a copy of


def _kill(moment: str, pid: int) -> None:
    once = Path(os.environ.get("KILL_ONCE", "/nowhere"))
    if os.environ.get("KILL_AT") != moment or once.exists():
        return
    seen = once.with_suffix(".seen")
    if not seen.exists():
        seen.touch()
        return
    once.touch()
    if "KILL_PARENT" in os.environ:
        above = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
        os.kill(int(above), signal.SIGKILL)
    os.kill(int(os.environ.get("KILL_PID", pid)), signal.SIGKILL)
    time.sleep(1)


def _around(function, before=None, after=None):
    def wrapped(*arguments, **options):
        if before:
            before(*arguments)
        result = function(*arguments, **options)
        if after:
            after(*arguments)
        return result

    return wrapped


def _change_run(module) -> None:
    def before(prepared, *_):
        parents["main"] = os.getppid()
        FAULTS.get(prepared.config.model.random_state, lambda: None)()
        if prepared.config.sweep_id:  # a cell, and not what warms a process up
            _kill("fit", os.getppid())

    module.fitted = _around(module.fitted, before)


def _change_ahead(module) -> None:
    fit_all = module._fit_all

    def changed(cells, file) -> None:
        if os.environ.get("KILL_AT") != "fit":  # a moment that a cell fitted ahead does not have
            fit_all(cells, file)

    module._fit_all = changed


def _change_packing(module) -> None:
    def before(result, *_):
        IN_WRITING.get(result.config.model.random_state, lambda: None)()

    def after(result, *_):
        if result.config.sweep_id:
            _kill("written", parents["main"])

    module.write_bundle = _around(module.write_bundle, before, after)


def _change_record(module) -> None:
    def before(*_):
        _kill("recording", os.getpid())

    module.log_detector = _around(module.log_detector, before)


def _lose_answers(name: str):
    tries = itertools.count(1)

    def after(*_):
        from mlflow.exceptions import MlflowException

        losing = os.environ.get("LOST_ANSWER") == name
        if losing and next(tries) <= float(os.environ.get("LOST_TIMES", "1")):
            raise MlflowException("an answer lost on purpose")  # INTERNAL_ERROR

    def change(module) -> None:
        step = name.partition(":")[2]
        setattr(module, step, _around(getattr(module, step), after=after))

    return change


def _interrupt(name: str):
    def before(*_):
        if os.environ.get("INTERRUPTED") == name:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            finally:
                raise AttributeError("half made")
        if os.environ.get("SWALLOWED") == name:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except BaseException:
                os.environ.pop("SWALLOWED", None)

    def change(module) -> None:
        step = name.partition(":")[2]
        setattr(module, step, _around(getattr(module, step), before))

    return change


INTERRUPTIBLE = (
    *("hmm_exp.sweep.plan:_compose", "hmm_exp.sweep.cell:run_cell"),
    *("hmm_exp.tracking.record:log_detector", "hmm_exp.report.log:log_report"),
)
LOST = (
    *("hmm_exp.tracking.record:log_detector", "hmm_exp.serving.mlflow_model:_save"),
    "hmm_exp.sweep.finish:_write_parent",
)
CHANGES = {
    "hmm_exp.experiment.run": [_change_run],
    "hmm_exp.sweep.ahead": [_change_ahead],
    "hmm_exp.tracking.pack": [_change_packing],
    "hmm_exp.tracking.record": [_change_record],
}
for name in LOST:
    CHANGES.setdefault(name.partition(":")[0], []).append(_lose_answers(name))
for name in INTERRUPTIBLE:
    CHANGES.setdefault(name.partition(":")[0], []).append(_interrupt(name))


class _Finder:
    """Changes a module when it has been imported."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            for change in CHANGES[name]:
                change(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder)
