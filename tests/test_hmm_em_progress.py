"""Climbs can be watched while they are under way, and do not notice."""

import threading

import numpy as np

from hmm_exp.hmm.em.progress import under_way
from tests.test_hmm_fit import fit


def test_a_watched_fit_shows_its_climbs_and_keeps_its_bits():
    X = np.random.default_rng(1).normal(size=(4000, 2)) ** 3
    steps = np.minimum(np.arange(len(X)), 1)
    options = {"n_states": 4, "n_init": 6, "n_iter": 400, "tol": 1e-9, "threads": 2}
    alone = fit(X, steps, **options)
    seen, over = [], threading.Event()

    def watch():
        while not over.wait(0.001):
            seen.extend(under_way())

    watcher = threading.Thread(target=watch)
    watcher.start()
    watched = fit(X, steps, **options)
    over.set()
    watcher.join()
    assert not under_way()
    assert {climb.of for climb in seen} == {6}
    assert len({climb.place for climb in seen}) > 1
    moving = [climb for climb in seen if climb.log_lik is not None]
    assert moving
    for climb in moving:
        history = alone.starts[climb.place].log_lik_history
        assert climb.log_lik == history[climb.n_iter - 1]
    assert str(moving[0]).startswith(f"start {moving[0].place + 1} of 6, iteration ")
    assert watched.history.tobytes() == alone.history.tobytes()
    assert watched.params.means.tobytes() == alone.params.means.tobytes()
