"""A sweep over walks forward: cells like any other, ranked out of sample."""

import pandas as pd
from mlflow.tracking import MlflowClient

from hmm_exp.sweep.leaderboard import choose, leaderboard
from hmm_exp.tracking import tags
from hmm_exp.tracking.runs import sweep_cells

WORDS = (
    *("data.n_bars=2500", "model.n_init=2", "tracking.figures=false", "promote=false"),
    *("split=walk_forward", "split.refit_every=500", "model.n_states=2,3"),
)


def test_walks_are_ranked_by_validation_bars_out_of_sample(train_cli, workdir):
    done = train_cli(workdir, "-m", *WORDS)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(f"sqlite:///{workdir}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'hmm_exp'")
    (parent,) = client.search_runs([experiment.experiment_id], f"tags.{tags.KIND} = 'sweep'")
    sweep_id = parent.data.tags[tags.SWEEP_ID]
    cells = sweep_cells(client, sweep_id)
    choice = choose(client, sweep_id)
    best = max(cells, key=lambda run: run.data.metrics["return_gain_val"])
    assert choice.run_id == best.info.run_id
    assert "highest out-of-sample return_gain_val of 2 walks" in choice.reasons[0]
    assert choice.reasons[0] in done.stdout
    assert leaderboard(cells)["run"].iloc[0] == best.info.run_id
    names = {item.path for item in client.list_artifacts(best.info.run_id)}
    assert {"refits.csv", "drift.csv", "regimes.csv", "scores.parquet"} <= names
    regimes = pd.read_csv(client.download_artifacts(best.info.run_id, "regimes.csv", str(workdir)))
    assert len(regimes) == 1500
    assert best.data.metrics["n_refits"] == 3
