"""Check that a detector never looks ahead: change future bars and compare the past regimes.

    hmm-causality --model models:/hmm_regime/Production --bars bars.csv

At random times the later bars are removed, then replaced by other prices. Filtered probabilities
up to that time must not change by a bit. Smoothed probabilities and the Viterbi path use later
bars: their change measures the look-ahead of a backtest that uses them.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hmm_exp.command_line import (
    DONE,
    Parser,
    Reading,
    add_model_option,
    add_read_options,
    exit_status,
    whole,
    with_read_options,
)

if TYPE_CHECKING:
    import pandas as pd

    from hmm_exp.detector.detector import Detector
    from hmm_exp.market.bars import Bars

EXAMPLES = """examples:
  hmm-causality --model models:/hmm_regime/Production --bars bars.csv
  hmm-causality --model runs:/0a1b2c3d4e5f --bars bars.csv --times 50
  hmm-causality --model ./model --bars bars.csv --seed 7

exit status: 0 filtered regimes never changed; 1 they changed; 2 bad input
"""
LOOKS_AHEAD = 1
OUTPUTS = ("filtered", "smoothed", "viterbi")


@dataclass(frozen=True)
class Views:
    """Filtered, smoothed and Viterbi states of the same rows."""

    available_at: np.ndarray  # close of each row, int64 nanoseconds, shape (T,)
    # State probabilities for each of `OUTPUTS`, shape (T, K); a Viterbi path is one-hot.
    probs: dict[str, np.ndarray]


def check_causality(
    detector: "Detector", bars: "Bars", times: int = 20, seed: int = 0
) -> "pd.DataFrame":
    """Truncate and rewrite the future at random times and compare the past regimes.

    Parameters
    ----------
    detector
        Model to check.
    bars
        At least twice `detector.min_history`.
    times
        Number of random times, drawn after the first `min_history` bars.
    seed
        Seed of the random times and prices.

    Returns
    -------
    DataFrame
        Index: output and future ("rewritten", "truncated"). `largest_change` is the largest
        change of a probability in a row up to the time; `labels_changed` counts rows whose most
        probable state changes; `newest_changed` is the share of times at which the newest row
        changes. If the rows themselves differ, the change is 1.

    Raises
    ------
    HistoryError
        There are too few bars.
    """
    import pandas as pd

    from hmm_exp.errors import HistoryError
    from hmm_exp.features.build import bars_in_words

    if len(bars) < 2 * detector.min_history:
        raise HistoryError(
            f"{bars_in_words(bars)}, are too few: at least {2 * detector.min_history:,} are "
            "needed, twice the model's minimum"
        )
    rng = np.random.default_rng(seed)
    whole = views(detector, bars)
    found: list[dict] = []
    for kept in rng.integers(detector.min_history, len(bars), size=times):
        for future, changed in _futures(bars, int(kept), rng):
            found += _changes(whole, views(detector, changed), bars.time[kept - 1], future)
    groups = pd.DataFrame(found).groupby(["output", "future"])  # sorts as OUTPUTS are listed
    return pd.DataFrame(
        {
            "largest_change": groups["change"].max(),
            "labels_changed": groups["labels"].sum(),
            "newest_changed": groups["newest"].mean(),
        }
    )


def hindsight(detector: "Detector", bars: "Bars") -> dict[str, float]:
    """Share of rows whose smoothed or Viterbi label differs from the filtered one, by output."""
    states = {name: probs.argmax(axis=1) for name, probs in views(detector, bars).probs.items()}
    return {name: float((states[name] != states["filtered"]).mean()) for name in OUTPUTS[1:]}


def views(detector: "Detector", bars: "Bars") -> Views:
    """Filtered, smoothed and Viterbi states of some bars."""
    import pandas as pd

    table = detector.observe(bars)
    path = detector.decoded(table).states
    answers = {
        "filtered": detector.filtered(table).probs,
        "smoothed": detector.smoothed(table).probs,
        "viterbi": np.eye(detector.n_states)[path],
    }
    return Views(pd.DatetimeIndex(table.frame.index).as_unit("ns").asi8, answers)


def _futures(bars: "Bars", kept: int, rng: np.random.Generator) -> "Iterator[tuple[str, Bars]]":
    """Truncate the bars after the first `kept`, then replace them by other prices."""
    yield "truncated", replace(bars, frame=bars.frame.iloc[:kept], states=None)
    frame, n = bars.frame.copy(), len(bars) - kept
    size = rng.uniform(0.01, 0.1)  # deviation of the return added to each bar
    walk = rng.normal(0, size, n).cumsum().clip(-20, 20)
    place = frame.index[kept:]
    prices = ["open", "high", "low", "close"]
    frame.loc[place, prices] = frame.loc[place, prices].mul(np.exp(walk), axis=0)
    frame.loc[place, "volume"] *= rng.lognormal(0, 1, n)
    yield "rewritten", replace(bars, frame=frame, states=None)


def _changes(whole: Views, other: Views, until: int, future: str) -> Iterator[dict]:
    """Differences in the rows known at a time, for each output."""
    past = int(np.searchsorted(whole.available_at, until, side="right"))
    same_rows = np.array_equal(
        whole.available_at[:past], other.available_at[other.available_at <= until]
    )
    for output in OUTPUTS:
        found = {"output": output, "future": future, "change": 1.0, "labels": past, "newest": True}
        if same_rows:
            ours, theirs = whole.probs[output][:past], other.probs[output][:past]
            changed = ours.argmax(axis=1) != theirs.argmax(axis=1)
            found["change"] = float(np.abs(ours - theirs).max(initial=0.0))
            found |= {"labels": int(changed.sum()), "newest": bool(changed[-1:].any())}
        yield found


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        prog="hmm-causality",
        description="Check that a detector never looks ahead, and measure what hindsight changes.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add_model_option(parser)
    add("--bars", type=Path, required=True, help="bars: CSV, gzip or Parquet")
    add_read_options(parser)
    add("--times", type=whole(1, 100_000), default=20, help="number of random times (default: 20)")
    add("--seed", type=whole(0, 2**64), default=0, help="seed of the random times (default: 0)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Check the model, print the table and the verdict; return the exit status."""
    from hmm_exp.serving.load import find_detector

    detector = with_read_options(find_detector(args.model), args)
    with Reading(detector) as reading:
        bars = reading.bars(args.bars)
        table = check_causality(detector, bars, args.times, args.seed)
    shown = table.reset_index()
    shown["largest_change"] = shown["largest_change"].map("{:.3g}".format)
    shown["newest_changed"] = shown["newest_changed"].map("{:.0%}".format)
    print(shown.to_string(index=False), end="\n\n")
    for output, share in hindsight(detector, bars).items():
        print(f"{output}: {share:.1%} of all labels differ from those known live")
    if table["largest_change"].xs("filtered", level="output").max() > 0:
        print("filtered regimes changed: this detector looks ahead")
        return LOOKS_AHEAD
    print(f"filtered regimes never changed at {args.times} random times: safe for live decisions")
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
