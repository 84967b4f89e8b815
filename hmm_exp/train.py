"""The command line: one run, or with `-m` a sweep, composed by Hydra and tracked in MLflow.

    python -m hmm_exp.train -m model.n_states=2,3,4,5 features=v1,v2

Exit status: 0 done, 1 a cell failed or nothing could be promoted, 2 bad input; 130 and 143 when
stopped by Ctrl-C or SIGTERM.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hmm_exp.command_line import VERSION, quiet_libraries, run_program
from hmm_exp.config import Config, checked, conf_dir
from hmm_exp.config.help import help_text
from hmm_exp.config.overrides import composition_error, hydra_words
from hmm_exp.errors import HmmExpError, described, is_from_outside, one_line
from hmm_exp.interrupts import exit_status, ignore_further, interrupt_of, listening
from hmm_exp.output import Output, coloured
from hmm_exp.sweep import child
from hmm_exp.sweep.progress import busy

# What a config may name to be called; Hydra 1.3 knows no such list, and 1.4 no `version_base`.
_OF_1_4: dict[str, Any] = {"execution_whitelist": ["hmm_exp.*"]}
_HYDRA = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else _OF_1_4
_at_work = False  # Hydra has made what it needs, and a cell runs
ConfigStore.instance().store(name="schema", node=Config)


@hydra.main(config_path=str(conf_dir()), config_name="config", **_HYDRA)
def cell(config: DictConfig) -> float | None:
    """Run one composed config; in a sweep a failure is recorded, not raised.

    Gives the cell's `sweep.objective` to a sweeper that optimises.
    """
    global _at_work
    _at_work = True
    quiet_libraries()  # on a worker, too
    logging.raiseExceptions = False  # a full disk is reported once, by what needs it
    try:
        settings = checked(config)
        with busy("loading", settings.quiet or settings.sweep.parent_run is not None):
            # MLflow and numba only when there is work
            run = _runs(settings)
        return run(settings)
    except Exception as error:
        if interrupt := interrupt_of(error):
            raise interrupt from None  # at which Hydra stops
        if isinstance(error, HmmExpError):  # raised further, Hydra would add lines of its own
            _refuse(str(error))
        if not is_from_outside(error):
            raise
        _refuse(described(error), status=1)
    return None


def _runs(settings: Config) -> Callable[[Config], float | None]:
    """What runs these settings: symbols of a panel, or one cell."""
    if settings.sweep.symbols is not None:
        from hmm_exp.panel.part import run_job

        return run_job
    from hmm_exp.sweep.cell import run_cell

    return run_cell


def main() -> None:
    """Run the command line; bad input is one line on standard error and exit status 2."""
    # What cannot be shown is recorded all the same.
    output = sys.stdout = Output(coloured(sys.stdout))
    sys.stderr = Output(coloured(sys.stderr))
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text())
    elif "--version" in sys.argv[1:]:
        print(VERSION)
    else:
        with listening():
            _run()
    output.flush()
    if output.error and not isinstance(output.error, BrokenPipeError):
        _refuse(f"standard output: {described(output.error)}", status=1)


def _run() -> None:
    quiet_libraries()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra raise, so that the line below is all
    warnings.formatwarning = _warning
    try:
        sys.argv[1:] = hydra_words(sys.argv[1:])
        if {"-m", "--multirun"} & set(sys.argv[1:]):
            child.worker()  # it imports while Hydra composes
        cell()
    except (Exception, KeyboardInterrupt) as error:
        _end(interrupt_of(error) or error)
    finally:
        child.dismiss()


def _end(error: BaseException) -> None:
    """Exit after an error: refuse bad input, close an open sweep, name what Hydra cannot use."""
    if isinstance(error, KeyboardInterrupt):
        ignore_further()  # the runs are closed first
    if not _closed_sweep(error):
        if isinstance(error, HmmExpError):
            _refuse(str(error))
        if isinstance(error, HydraException | OmegaConfBaseException):
            _refuse(composition_error(error))
        if not _at_work:
            from hmm_exp.store.folders import remove_run_folder

            remove_run_folder()
        if isinstance(error, KeyboardInterrupt) or is_from_outside(error):
            print(f"error: {described(error)}", file=sys.stderr)
        elif _at_work:
            raise error
        else:
            words = " ".join(word for word in sys.argv[1:] if "hydra" in word) or "these words"
            _refuse(f"Hydra cannot start with {words}: {described(error)}")
    exec("")  # after an interrupt inside an exec, `python -m` ends by SIGINT unless one follows
    sys.exit(exit_status(error) if isinstance(error, KeyboardInterrupt) else 1)


def _closed_sweep(error: BaseException) -> bool:
    """Close the sweep that this process has opened, if any; give whether there was one."""
    callback = sys.modules.get("hmm_exp.callback")  # which opens them
    return callback is not None and callback.abandon(error)


def _warning(
    message: Warning | str, category: type, filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning on one line, without the line of code that gives it."""
    return f"warning: {one_line(message)}\n"


def _refuse(line: str, status: int = 2) -> None:
    print(f"error: {one_line(line)}", file=sys.stderr)
    sys.exit(status)


def program() -> None:
    """Run the command line as the whole of a process."""
    run_program(main)


if __name__ == "__main__":
    program()
