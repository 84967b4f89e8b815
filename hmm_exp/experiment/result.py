"""Result of a run, for the record, the terminal and the figures."""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import yaml
from sklearn.preprocessing import StandardScaler

from hmm_exp.config import Config
from hmm_exp.detector.decision import UNDECIDED
from hmm_exp.detector.detector import Detector
from hmm_exp.experiment.assess import Assessment
from hmm_exp.experiment.candidate import Candidate
from hmm_exp.experiment.prepare import Prepared
from hmm_exp.experiment.walk import Walk
from hmm_exp.judge.states import expected_dwell
from hmm_exp.judge.strategy_table import StrategyTable
from hmm_exp.judge.wording import probability
from hmm_exp.market.iso import iso
from hmm_exp.market.reading import unclosed_hint


@dataclass(frozen=True, eq=False)
class RunResult:
    """Result of a run.

    Attributes
    ----------
    prepared
        The fitted rows; after a walk forward scaled for its last model.
    candidates, chosen
        Every number of states tried, and the one selected; of a walk its last model, with the
        likelihoods of all out-of-sample rows.
    detector
        The detector that is promoted and served.
    scaler
        The detector's scaler as a scikit-learn object.
    refit
        The fit on train and validation behind the detector, or None when it is the train fit.
    assessment
        Regimes, tables and metrics of the chosen train fit, or of the chosen walk out of sample.
    regimes
        Rows of `regimes.csv`.
    metrics
        By flat name, all finite; metrics that do not exist are left out.
    faults
        Hard faults of the chosen model; with any it is not eligible.
    warnings
        Sentences for the reader; the choice does not depend on them.
    walk
        The walk forward; None for a single fit.
    strategies
        The strategy table; None without bars, or with too few to judge.
    no_errors
        Why standard errors of the chosen fit are missing, in words; empty where none is.
    """

    prepared: Prepared
    candidates: list[Candidate]
    chosen: Candidate
    detector: Detector
    scaler: StandardScaler
    refit: Candidate | None
    assessment: Assessment
    selection: pd.DataFrame
    regimes: pd.DataFrame
    metrics: dict[str, float]
    faults: list[str]
    warnings: list[str]
    walk: Walk | None = None
    strategies: StrategyTable | None = None
    no_errors: str = ""

    @property
    def config(self) -> Config:
        """The settings of the run."""
        return self.prepared.config

    @property
    def config_yaml(self) -> str:
        """The whole resolved settings as YAML."""
        return yaml.dump(asdict(self.config), Dumper=yaml.CSafeDumper, sort_keys=False)

    @property
    def n_states(self) -> int:
        """Number of states chosen."""
        return self.chosen.n_states

    def selection_view(self) -> pd.DataFrame:
        """Selection table for a reader: criteria of every number of states, and the choice."""
        columns = [
            "n_states",
            "bic",
            "aic",
            "hqc",
            "icl",
            "cv",
            "bic_next",
            "log_lik_val",
            "min_occupancy",
            "chosen",
        ]
        return self.selection[[name for name in columns if name in self.selection]]

    def state_view(self) -> pd.DataFrame:
        """One row per state for a reader: share, dwell, next bar's volatility and mean by part."""
        summary = self.assessment.summary
        view = pd.DataFrame({"state": summary.labels, "share": self.chosen.occupancy})
        view["dwell_bars"] = expected_dwell(summary.transmat)
        for name, table in self.assessment.next_bar.items():
            view[f"next_vol_{name}"] = table["volatility"].to_numpy()
            view[f"next_mean_{name}"] = table["mean"].to_numpy()
        return view

    @property
    def seconds(self) -> float:
        """Seconds of all parts so far."""
        return sum(value for name, value in self.metrics.items() if name.startswith("seconds_"))

    @property
    def decided(self) -> np.ndarray:
        """Decided regime of every prepared row, shape (T,); -1 if undecided or before a walk."""
        found = np.full(len(self.prepared.table), UNDECIDED)
        known = pd.DatetimeIndex(self.regimes["available_at"])
        found[self.prepared.table.available_at.get_indexer(known)] = self.regimes["regime"]
        return found

    @property
    def regime_now(self) -> str:
        """Decided regime of the last row in words, and a doubt about its bar."""
        bars = self.prepared.source.bars
        hint = None if bars is None else unclosed_hint(bars)
        return "; ".join(filter(None, [regime_in_words(self.regimes), hint]))


def regime_at_end(regimes: pd.DataFrame) -> dict[str, str]:
    """Decided regime of the last row of a frame: `regime`, `since` and `probability`, as texts.

    Empty where it is not decided yet.
    """
    last, decided = regimes.iloc[-1], regimes["regime"].to_numpy()
    if last["regime"] == UNDECIDED:
        return {}
    changes = np.flatnonzero(np.diff(decided)) + 1
    since = regimes["available_at"].iloc[changes[-1] if len(changes) else 0]
    label = next(iter(regimes["label"][regimes["state"] == last["regime"]]), "regime")
    sure = float(regimes[f"p_state_{last['regime']}"].iloc[-1])
    return {"regime": str(label), "since": iso(since), "probability": repr(sure)}


def regime_in_words(regimes: pd.DataFrame) -> str:
    """Decided regime of the last row of a frame in words, and the most probable if another."""
    last, decided = regimes.iloc[-1], regimes["regime"].to_numpy()
    at = f"regime at {iso(last['available_at'])}"
    if last["regime"] == UNDECIDED:
        return f"{at}: not decided yet, most probable is {_named(regimes, last['state'])}"
    changes = np.flatnonzero(np.diff(decided)) + 1
    since = regimes["available_at"].iloc[changes[-1] if len(changes) else 0]
    words = f"{at}: {_named(regimes, last['regime'], f'since {iso(since)}')}"
    if last["state"] == last["regime"]:
        return words
    return f"{words}; most probable is {_named(regimes, last['state'])}: not enough to decide"


def _named(regimes: pd.DataFrame, state: int, *more: str) -> str:
    """Label of a state, its number, and its probability in the last row."""
    label = next(iter(regimes["label"][regimes["state"] == state]), "regime")
    sure = f"probability {probability(regimes[f'p_state_{state}'].iloc[-1])}"
    return ", ".join([f"{label} (state {state})", *more, sure])
