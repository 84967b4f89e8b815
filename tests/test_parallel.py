"""Restarts in threads: the same bits, every start reported, BLAS left alone."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from hmm_exp import compiling
from hmm_exp.hmm import restarts
from hmm_exp.hmm.em import run
from hmm_exp.hmm.starts import KINDS
from hmm_exp.owner import tag_of
from hmm_exp.parallel import cores, run_ahead, run_all
from tests.test_hmm_fit import fit, planted


def blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_a_fit_has_the_same_bits_at_any_number_of_threads(covariance_type):
    X, steps = planted(700)
    X[50:60] = np.nan
    options = {"n_states": 3, "n_init": 5, "n_iter": 30, "covariance_type": covariance_type}
    fits = [fit(X, steps, **options, threads=threads) for threads in (1, 2, 5, None)]
    for other in fits[1:]:
        assert other.params.covars.tobytes() == fits[0].params.covars.tobytes()
        assert other.history.tobytes() == fits[0].history.tobytes()
        assert [s.log_lik for s in other.starts] == [s.log_lik for s in fits[0].starts]


def test_progress_tells_every_start_in_the_callers_thread():
    X, steps = planted(300)
    seen = []
    fitted = fit(X, steps, n_states=2, n_init=4, threads=2, progress=lambda *now: seen.append(now))
    assert sorted(seen) == [(i, 4, start.log_lik) for i, start in enumerate(fitted.starts)]


def test_results_keep_the_order_of_the_items():
    assert run_all(lambda i: i * i, range(20), threads=4) == [i * i for i in range(20)]
    assert run_all(lambda i: i, [], threads=4) == []
    assert cores() >= 1


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_what_runs_ahead_comes_in_order_and_no_further_than_asked(threads):
    begun, most = [], 0

    def square(i):
        begun.append(i)
        return i * i

    for i, result in enumerate(run_ahead(square, range(30), threads)):
        assert result == i * i
        most = max(most, len(begun) - i)
    assert most <= threads
    assert list(run_ahead(square, [], threads)) == []


def test_an_error_in_a_thread_is_the_callers():
    def fail(i):
        raise ValueError(f"item {i}")

    for threads in (1, 3):
        with pytest.raises(ValueError, match="item"):
            run_all(fail, range(5), threads=threads)
        with pytest.raises(ValueError, match="item 0"):
            list(run_ahead(fail, range(5), threads))


def test_blas_keeps_its_threads_and_changes_no_bit():
    X, steps = planted(700)
    fits = []
    for n in (1, 2):
        with threadpool_limits(n):
            before = blas_threads()
            fits.append(fit(X, steps, n_states=3, n_init=5, n_iter=5, kinds=KINDS))
            assert blas_threads() == before
    assert fits[0].params.covars.tobytes() == fits[1].params.covars.tobytes()
    assert [s.log_lik for s in fits[0].starts] == [s.log_lik for s in fits[1].starts]


def test_long_series_get_short_runs_and_the_best_are_polished(monkeypatch):
    monkeypatch.setattr(restarts, "LONG", 500)
    monkeypatch.setattr(restarts, "SHORT_RUN", 4)
    X, steps = planted(700)
    fitted = fit(X, steps, n_states=3, n_init=7, threads=2)
    drawn = [start for start in fitted.starts if start.kind != "released"]
    ended = [start.status for start in drawn]
    assert ended.count("short") == 4
    assert sum(start.polished for start in drawn) == 3
    assert fitted.converged
    short = [start for start in fitted.starts if start.status == "short"]
    assert {start.n_iter for start in short} == {4}
    entered = {start.history[4] for start in drawn if start.polished}
    assert min(entered) >= max(start.history[4] for start in short)
    for start in fitted.starts:
        assert len(start.history) == len(start.log_lik_history) == start.n_iter + 1
        assert (np.diff(start.history) > -1e-8).all()
    shares = [i / fitted.n_polished for i in range(1, fitted.n_polished + 1)]
    assert fitted.restart_agreement in shares


# Compiled code on disk.


@pytest.mark.parametrize("room", ["hmm/simd", "hmm/density", "features/kernel", "detector/kernel"])
def test_a_change_in_any_compiled_file_changes_the_folder(tmp_path, room):
    package = tmp_path / "hmm_exp"
    shutil.copytree(Path(compiling.__file__).parent, package)
    before = compiling.digest_of(package)
    assert compiling.cache_folder().name == before
    for name, same in (("errors.py", True), (f"{room}.py", False)):
        with (package / name).open("a") as file:
            file.write("# changed")
        assert (compiling.digest_of(package) == before) is same


def test_every_compiled_function_is_kept_in_that_folder():
    for source in Path(compiling.__file__).parent.rglob("*.py"):
        if source.name != "compiling.py":
            assert "njit" not in source.read_text(), source


def test_compiling_is_told_once_for_what_compiles_within_it():
    compiling_now = []
    compiling.when_compiling(compiling_now.append)
    inner = compiling.njit(lambda x: x + 1)
    outer = compiling.njit(lambda x: inner(x) + inner(x))
    outer(1)
    assert compiling_now == [True, False]
    outer(2)
    assert compiling_now == [True, False]


def test_only_the_newest_folders_of_compiled_code_stay(tmp_path):
    names = [f"{i:016x}" for i in range(7)]
    for age, name in enumerate(reversed(names)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.nbc").write_text("")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / "not ours").mkdir()
    compiling.prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*names[-4:], "not ours"}
    compiling.prune(tmp_path / "absent")


class Unseen:
    """An entry that nobody has called."""

    signatures = ()

    @staticmethod
    def py_func():
        """Have a name, as compiled functions do."""


def test_the_user_is_told_once_that_the_engine_is_compiled(caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "cache_folder", lambda: tmp_path / "0123456789abcdef")
    with caplog.at_level(logging.INFO, logger="hmm_exp.hmm"):
        compiling.announce(Unseen)
        assert [r.getMessage() for r in caplog.records] == [
            "compiling the fitting engine, once on this machine (10 to 30 s) ..."
        ]
        run.announce_compilation()  # compiled by now, or on disk
        fit(*planted(50), n_states=1)
        run.announce_compilation()
    assert len(caplog.records) <= 2


def test_of_processes_that_begin_together_one_says_that_it_compiles(caplog, monkeypatch, tmp_path):
    folder = tmp_path / "0123456789abcdef"
    monkeypatch.setattr(compiling, "cache_folder", lambda: folder)
    with caplog.at_level(logging.INFO, logger="hmm_exp.hmm"):
        compiling.announce(Unseen)
        compiling.announce(Unseen)
        assert len(caplog.records) == 1
        os.utime(folder / "compiling", (1e9, 1e9))  # killed long ago, before it was done
        compiling.announce(Unseen)
        assert len(caplog.records) == 2
        (folder / "compiling").write_text(ended_process())
        compiling.announce(Unseen)
        compiling.announce(Unseen)
    assert len(caplog.records) == 3


def ended_process() -> str:
    """Owner tag of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return tag_of(process.pid)


def test_where_compiled_code_cannot_be_kept_the_line_says_so(caplog, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    folder = tmp_path / "file" / "0123456789abcdef"
    monkeypatch.setattr(compiling, "cache_folder", lambda: folder)
    with caplog.at_level(logging.INFO, logger="hmm_exp.hmm"):
        for _ in range(2):
            assert not compiling.announce(Unseen)  # nobody else can use what is compiled
    (record,) = caplog.records
    assert f"each time anew, as {folder} cannot be written" in record.getMessage()


def test_compiled_code_is_kept_nowhere_else(tmp_path):
    package = tmp_path / "hmm_exp"  # may be written to, and Numba would like to
    shutil.copytree(Path(compiling.__file__).parent, package, ignore=lambda *_: {"__pycache__"})
    (tmp_path / "file").write_text("no folder")
    lines = (
        "import numpy as np; from hmm_exp.hmm import inference as i;",
        "print(i.__file__, i.predict(np.eye(2), np.eye(2)).tolist())",
    )
    places = {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "file")}
    command = [sys.executable, "-c", "".join(lines)]
    environment = {name: x for name, x in os.environ.items() if name != "NUMBA_CACHE_DIR"} | places
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{package / 'hmm' / 'inference.py'} [[1.0, 0.0], [0.0, 1.0]]\n"
    assert not list(tmp_path.rglob("*.nb[ci]"))
