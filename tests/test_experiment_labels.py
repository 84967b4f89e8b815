"""Labels of a run: states of about equal volatility are named by what differs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from hmm_exp.config import Config, DataConfig, FeaturesConfig, ModelConfig, SplitConfig, checked
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.run import RunResult, run

N_ROWS = 3000
RANGE, SIDE, RETURN = (
    f"{name}_1H"
    for name in ("high_low_range_pct_current", "close_over_vwap", "close_logret_current")
)


def table(swaps: bool = False) -> pd.DataFrame:
    """Rows on either side of VWAP by turns, with about the same range.

    With `swaps` the calmer side, by a trifle, changes after the train rows.
    """
    random = np.random.default_rng(5)
    quantiles = norm.ppf((np.arange(50) + 0.5) / 50)  # of mean zero in every stretch on one side
    noise = np.concatenate([random.permutation(quantiles) for _ in range(N_ROWS // 50)])
    side = np.where(np.arange(N_ROWS) // 50 % 2, 1.0, -1.0)
    calmer = np.where(swaps & (np.arange(N_ROWS) > 0.7 * N_ROWS), -1.0, 1.0)
    return pd.DataFrame(
        {
            "timestamp": pd.date_range("2024-01-01", periods=N_ROWS, freq="h"),
            RANGE: 0.01 + 0.00015 * side * calmer + 0.001 * noise,
            SIDE: 1.0 + 0.05 * side + random.normal(0.0, 0.01, N_ROWS),
            RETURN: random.normal(0.0, 0.01, N_ROWS),
        }
    )


def run_on(frame: pd.DataFrame, path: Path, split: SplitConfig | None = None, **model) -> RunResult:
    frame.to_csv(path, index=False)
    return run(
        prepare(
            checked(
                Config(
                    data=DataConfig(kind="features", path=str(path), bar_stamp="open"),
                    features=FeaturesConfig(name="columns", columns=[RANGE, SIDE]),
                    model=replace(ModelConfig(), n_init=2, n_states=2, **model),
                    split=split or SplitConfig(),
                )
            )
        )
    )


NAMED = ("vol-0 below VWAP", "vol-1 above VWAP")


@pytest.mark.parametrize("refit", ["train", "train_val"])
def test_one_set_of_labels_names_detector_tables_and_rows(tmp_path, refit):
    result = run_on(table(), tmp_path / "t.csv", refit=refit)
    assert result.detector.labels == NAMED
    assert tuple(result.assessment.summary.labels) == NAMED
    assert set(result.regimes["label"]) == set(NAMED)
    assert "vol-0 below VWAP" in list(result.state_view()["state"])


def test_labels_do_not_read_the_bars_that_judge(tmp_path):
    frame, later = table(), table()
    rows = later.index[int(0.7 * N_ROWS) + 1 :]
    later.loc[rows, RANGE] *= 3.0
    later.loc[rows, SIDE] = 2.0 - later.loc[rows, SIDE]
    found = [run_on(f, tmp_path / "t.csv").detector.labels for f in (frame, later)]
    assert found[0] == found[1] == NAMED


WALK = SplitConfig(kind="walk_forward", refit_every=400, window=800)


def test_a_walk_has_one_set_of_labels(tmp_path):
    result = run_on(table(), tmp_path / "t.csv", WALK)
    assert len(result.walk.refits) > 1
    assert result.detector.labels == NAMED
    assert set(result.regimes["label"]) == set(NAMED)


def test_a_walk_drops_words_that_do_not_hold_for_every_refit(tmp_path):
    result = run_on(table(swaps=True), tmp_path / "t.csv", WALK)
    assert result.detector.labels == ("vol-0", "vol-1")
    assert set(result.regimes["label"]) == {"vol-0", "vol-1"}


def test_four_states_are_called_by_their_numbers(tmp_path, small_config):
    config = replace(small_config, model=replace(small_config.model, n_states=4))
    result = run(prepare(checked(config)))
    rows = result.regimes[["state", "label"]].drop_duplicates()
    assert len(rows) == 4
    for state, label in rows.itertuples(index=False):
        assert label.split()[0] == f"vol-{state}"
