r"""How much of a sweep's best gain is luck: interval, number of cells tried, and reality check.

All of it is measured on validation, where the choice was made. Every finished cell with scores
takes part in the check, ineligible ones too: they were tried.

    luck = weigh_choice(client, cells, winner_run_id)
    print(*luck.lines, sep="\n")
"""

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from mlflow.entities import Metric, Run
from mlflow.tracking import MlflowClient

from hmm_exp.errors import one_line
from hmm_exp.judge.gains import MIN_BARS, GainEstimate, RealityCheck, estimate_gain, reality_check
from hmm_exp.judge.unscored import FORECASTS, in_words, why_no_gain
from hmm_exp.judge.wording import signed
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import read_validation, unscored_of
from hmm_exp.tracking.runs import called, lacks

_BASELINES = {"return_gain_val": "static", "ewma_gain_val": "ewma", "return_score_val": "static"}
_TOO_FEW = f"fewer than {MIN_BARS} validation bars are scored by every cell"


@dataclass(frozen=True)
class Luck:
    """Figures that tell luck from skill in a sweep's winner."""

    baseline: str  # what gains are over, in words
    # `n_tried`, `n_models`: cells of the sweep, and numbers of states fitted in all of them.
    n_tried: int
    n_models: int
    winner: GainEstimate | None  # its gain on validation, nats per bar, None where there is none
    # Best of all scored cells against the best of as many worthless ones, None without scores.
    check: RealityCheck | None
    # Name of the cell with the highest mean gain, and whether it is the winner; of equal ones the
    # winner.
    best: str | None
    best_is: str = ""
    unchecked: str = _TOO_FEW  # why there is no check

    @property
    def lines(self) -> list[str]:
        """Lines under the leaderboard."""
        models = f", {self.n_models} models" if self.n_models > self.n_tried else ""
        tried = f"cells tried: {self.n_tried}{models}"
        lines = [tried if self.check else f"{tried}; no reality check: {self.unchecked}"]
        if self.winner:
            gain = self.winner
            lines.append(
                f"winner's gain over {self.baseline} on {gain.n_bars:,} validation bars: "
                f"{signed(gain.mean)} nats per bar, 95 % interval {signed(gain.low)} to "
                f"{signed(gain.high)}"
            )
        if self.check:
            lines.append(
                f"reality check: the best of {self.check.n_cells} scored cells, {self.best} "
                f"({self.best_is}), is as good by luck with probability "
                f"{self.check.p_white:.3f} (White), {self.check.p_spa:.3f} (Hansen)"
            )
        return lines

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the parent run."""
        metrics: dict[str, float] = {"n_cells_tried": self.n_tried, "n_models_tried": self.n_models}
        if self.winner:
            metrics |= self.winner.metrics("winner_gain_val")
        if self.check:
            metrics |= {
                "reality_check_cells": self.check.n_cells,
                "reality_check_p_white": self.check.p_white,
                "reality_check_p_spa": self.check.p_spa,
            }
        return metrics


def weigh_choice(client: MlflowClient, cells: list[Run], winner_id: str | None) -> Luck:
    """Measure the winner's gain in view of the number of cells tried."""
    finished = _finished(cells)
    baseline = _baseline(finished)
    gains = _validation_gains(client, finished, f"{baseline}_score")
    table = pd.DataFrame(gains)
    check = reality_check(table.to_numpy().T) if gains else None
    best = _best(table, finished, winner_id) if check else None
    return Luck(
        baseline=FORECASTS[baseline],
        n_tried=len(_latest(cells)),
        n_models=sum(_n_models(run) for run in finished),
        winner=estimate_gain(gains[winner_id].to_numpy()) if winner_id in gains else None,
        check=check,
        best=called(best) if best else None,
        best_is=_part(best, winner_id) if best else "",
        unchecked=why_unchecked(cells),
    )


def _best(gains: pd.DataFrame, runs: list[Run], winner_id: str | None) -> Run:
    """Run with the highest mean gain on the common bars; the winner if it is equal to it."""
    means = {str(run_id): float(mean) for run_id, mean in gains.dropna().mean().items()}
    highest = max(means, key=lambda run_id: means[run_id])
    lead = means[highest] - means.get(winner_id or "", -math.inf)
    best = winner_id if float(f"{lead:.4f}") == 0.0 else highest
    return next(run for run in runs if run.info.run_id == best)


def _part(run: Run, winner_id: str | None) -> str:
    """Part of a cell in the choice."""
    if run.info.run_id == winner_id:
        return "the winner"
    return "ineligible" if lacks(run) or tags.FAULTS in run.data.tags else "not the winner"


def why_unchecked(cells: list[Run]) -> str:
    """Reason why no gain of a sweep's cells can be weighed."""
    finished = _finished(cells)
    found = (why_no_gain(unscored_of(run), _baseline(finished)) for run in finished)
    return next((why for why in found if why), _TOO_FEW)


def write_luck(client: MlflowClient, run_id: str, luck: Luck) -> None:
    """Write the figures on the sweep's parent run."""
    now = int(pd.Timestamp.now("UTC").timestamp() * 1000)
    metrics = [Metric(name, float(value), now, 0) for name, value in luck.metrics.items()]
    client.log_batch(run_id, metrics=metrics)


def _validation_gains(client: MlflowClient, runs: list[Run], baseline: str) -> dict[str, pd.Series]:
    """Gain of every run that has scores, by run id; of equal runs the last."""
    gains = {}
    for run in _latest(runs):
        val = read_validation(client, run)
        if val is not None:
            gain = (val["model_score"] - val[baseline]).astype(np.float64)
            if gain.notna().any():
                gains[run.info.run_id] = gain
    return gains


def _finished(cells: list[Run]) -> list[Run]:
    return [run for run in cells if run.info.status == "FINISHED"]


def _baseline(finished: list[Run]) -> str:
    """Baseline of the gains that a sweep is judged by."""
    settings = (run.data.params.get("selection.across", "") for run in finished)
    return next((_BASELINES[name] for name in settings if name in _BASELINES), "static")


def _latest(runs: list[Run]) -> list[Run]:
    """Runs without those that were tried again later."""
    by_print = {run.data.tags.get(tags.FINGERPRINT, run.info.run_id): run for run in runs}
    return list(by_print.values())


def _n_models(run: Run) -> int:
    grid = run.data.params.get("model.state_grid")
    return len(json.loads(grid)) if grid else 1


_STATES = {"model.n_states", "model.state_grid"}
_LOG_LIK = {"log_lik_train", "n_states"}
_CLOSE = 0.1  # nats; as near as restarts are said to agree


def shortfalls(cells: list[Run]) -> list[str]:
    """Name finished cells whose train log-likelihood is below that of the same with fewer states.

    More states can never fit worse, so EM stopped at a poor optimum.
    """
    alike: dict[tuple, list[Run]] = defaultdict(list)
    for run in _finished(cells):
        if set(run.data.metrics) >= _LOG_LIK:
            rest = {name: v for name, v in run.data.params.items() if name not in _STATES}
            space = run.data.tags.get(tags.OBSERVATION_SPACE)
            alike[(space, *sorted(rest.items()))].append(run)
    lines = []
    for runs in alike.values():
        runs.sort(key=lambda run: run.data.metrics["n_states"])
        lines += [_line(*pair) for pair in pairwise(runs) if _short(*pair) > _CLOSE]
    return lines


def missing_scores(cells: list[Run]) -> list[str]:
    """Reasons why finished cells lack scores, with the cells."""
    finished = _finished(cells)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for run in finished:
        for reason in in_words(unscored_of(run)):
            by_reason[reason].append(run.data.tags[tags.CELL])
    return [
        one_line(f"{_which(names, len(finished))}: {reason}") for reason, names in by_reason.items()
    ]


def _which(names: list[str], n_finished: int) -> str:
    if len(names) == 1:
        return names[0]
    return f"{len(names)} of {n_finished} cells, such as {names[0]}"


def _short(fewer: Run, more: Run) -> float:
    return fewer.data.metrics["log_lik_train"] - more.data.metrics["log_lik_train"]


def _line(fewer: Run, more: Run) -> str:
    names = [called(run) for run in (more, fewer)]
    return (
        f"{names[0]} fits {_short(fewer, more):.1f} nats worse than {names[1]}: EM stopped short, "
        "more starts may help (model.n_init)"
    )
