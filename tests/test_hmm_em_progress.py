"""EM runs are visible while they are under way and keep their bits."""

import threading

import numpy as np

from hmm_exp.hmm.em.progress import under_way
from tests.test_hmm_fit import fit


def test_a_visible_fit_shows_its_runs_and_keeps_its_bits():
    X = np.random.default_rng(1).normal(size=(4000, 2)) ** 3
    steps = np.minimum(np.arange(len(X)), 1)
    options = {"n_states": 4, "n_init": 6, "n_iter": 400, "tol": 1e-9, "threads": 2}
    alone = fit(X, steps, **options)
    seen, over = [], threading.Event()

    def observe():
        while not over.wait(0.001):
            seen.extend(under_way())

    observer = threading.Thread(target=observe)
    observer.start()
    observed = fit(X, steps, **options)
    over.set()
    observer.join()
    assert not under_way()
    assert {run.of for run in seen} == {6}
    assert len({run.place for run in seen}) > 1
    moving = [run for run in seen if run.log_lik is not None]
    assert moving
    for run in moving:
        history = alone.starts[run.place].log_lik_history
        assert run.log_lik == history[run.n_iter - 1]
    assert str(moving[0]).startswith(f"start {moving[0].place + 1} of 6, iteration ")
    assert observed.history.tobytes() == alone.history.tobytes()
    assert observed.params.means.tobytes() == alone.params.means.tobytes()
