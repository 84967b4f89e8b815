"""Lines and tables for the terminal."""

import json
import sys
from typing import TYPE_CHECKING

import pandas as pd

from hmm_exp.judge.unscored import why_no_gain
from hmm_exp.judge.wording import signed
from hmm_exp.output import DIM, WINS, has_colour, painted
from hmm_exp.tracking import tags
from hmm_exp.tracking.ui import GAIN_COLUMNS, plain_table

if TYPE_CHECKING:
    from hmm_exp.experiment.result import RunResult

WIDTH = 120
_MOST_FAULTS = 5


def summary_line(metrics: dict[str, float], run_tags: dict[str, str]) -> str:
    """One line about a finished cell."""
    gain = metrics.get("return_gain_val")
    seconds = sum(value for name, value in metrics.items() if name.startswith("seconds_"))
    parts = [f"K={metrics['n_states']:.0f}"]
    parts += [f"BIC {metrics['bic']:.1f}"] if "bic" in metrics else []
    why = why_no_gain(json.loads(run_tags.get(tags.UNSCORED, "{}")), "static")
    parts += [f"gain {signed(gain)}"] if gain is not None else [f"no gain: {why}"] if why else []
    parts += [f"{seconds:.1f} s"]
    faults = run_tags.get(tags.FAULTS)
    parts += [f"ineligible: {faults.split('; ')[0]}"] if faults else []
    return "  ".join(parts)


def print_run(result: "RunResult") -> None:
    """Print the states that a run chose, and a table of them."""
    if len(result.selection) > 1:
        print(plain_table(result.selection_view()), end="\n\n")
    print(plain_table(result.state_view()), end="\n\n")
    for fault in result.faults[:_MOST_FAULTS]:
        print(f"hard fault: {fault}")
    if len(result.faults) > _MOST_FAULTS:
        print(f"and {len(result.faults) - _MOST_FAULTS} more, in the run's tag status_reason")
    for warning in result.warnings:
        print(f"warning: {warning}")


def leaderboard_lines(table: pd.DataFrame, winner: str | None) -> str:
    """The leaderboard, on a terminal with the winner's row in colour and ineligible rows dim.

    `winner` is the id of its run.
    """
    head, *rows = leaderboard_table(table).splitlines()
    if not has_colour(sys.stdout):
        return "\n".join([head, *rows])
    for number, (run, eligible) in enumerate(zip(table["run"], table["eligible"], strict=True)):
        if run == winner:
            rows[number] = painted(rows[number], WINS)
        elif not eligible.startswith("yes"):
            rows[number] = painted(rows[number], DIM)
    return "\n".join([head, *rows])


def leaderboard_table(table: pd.DataFrame) -> str:
    """The leaderboard in at most WIDTH columns; long reasons are cut, the run has them whole.

    A gain that no cell has is left out.
    """
    gains = [name for name in GAIN_COLUMNS if table[name].notna().any()]
    shown = (
        table.drop(columns=GAIN_COLUMNS.keys() - gains)
        .assign(
            run=table["run"].str[:8],
            K=table["K"].map("{:.0f}".format, na_action="ignore"),
            bic=table["bic"].map("{:.1f}".format, na_action="ignore"),
            s=table["s"].map("{:.1f}".format, na_action="ignore"),
            **{
                name: table[name].map(signed, na_action="ignore") for name in ("val_ll/bar", *gains)
            },
        )
        .fillna("")
    )
    narrow = shown.drop(columns="eligible").to_string(index=False).splitlines()
    room = max(12, WIDTH - max(map(len, narrow)) - 2)
    cut = shown["eligible"].map(lambda text: text if len(text) <= room else text[: room - 1] + "…")
    return shown.assign(eligible=cut).to_string(index=False)
