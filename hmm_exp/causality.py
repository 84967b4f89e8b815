"""Test a detector for look-ahead: rewrite the future and compare its answers about the past.

    hmm-causality --model models:/hmm_regime/Production --bars bars.csv

At random times the bars after are cut off, and then rewritten as another market. Filtered answers
up to that time must stay the same to the last bit. Smoothed probabilities and the Viterbi path
look back from the end of the data: how far they move is what a backtest on them would not see.
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
    add_read_options,
    exit_status,
    show_reading,
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

exit status: 0 filtered answers never changed; 1 they did; 2 bad input
"""
LOOKS_AHEAD = 1
OUTPUTS = ("filtered", "smoothed", "viterbi")


@dataclass(frozen=True)
class Views:
    """Answers about the rows of some bars.

    Attributes
    ----------
    available_at
        When each row was known, int64 nanoseconds, shape (T,).
    probs
        For each of `OUTPUTS` state probabilities (T, K); a Viterbi path is one-hot.
    """

    available_at: np.ndarray
    probs: dict[str, np.ndarray]


def check_causality(
    detector: "Detector", bars: "Bars", times: int = 20, seed: int = 0
) -> "pd.DataFrame":
    """Rewrite and truncate the future at random times and compare the past.

    Parameters
    ----------
    detector
        The model to be checked.
    bars
        At least twice `detector.min_history`.
    times
        At how many random times, spread over the bars after the first `min_history`.
    seed
        The same seed checks the same times.

    Returns
    -------
    DataFrame
        Index output and future ("rewritten", "truncated"). `largest_change` of a probability in
        any row up to the time; `labels_changed`, the number of rows whose most probable state is
        another; `newest_changed`, the share of the times whose last row is among them. A row that
        is there in one answer and not in the other is a change of 1.

    Raises
    ------
    HistoryError
        With too few bars.
    """
    import pandas as pd

    from hmm_exp.errors import HistoryError
    from hmm_exp.features.build import bars_in_words

    if len(bars) < 2 * detector.min_history:
        raise HistoryError(
            f"{bars_in_words(bars)}, are too few: at least {2 * detector.min_history:,} are "
            "needed, twice what one answer needs"
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
    """Share of the rows whose label in hindsight differs from the live one, by output."""
    states = {name: probs.argmax(axis=1) for name, probs in views(detector, bars).probs.items()}
    return {name: float((states[name] != states["filtered"]).mean()) for name in OUTPUTS[1:]}


def views(detector: "Detector", bars: "Bars") -> Views:
    """All three answers about some bars."""
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
    """The first `kept` bars alone, and with another market after them."""
    yield "truncated", replace(bars, frame=bars.frame.iloc[:kept], states=None)
    frame, n = bars.frame.copy(), len(bars) - kept
    size = rng.uniform(0.01, 0.1)  # of a further return on every bar
    walk = rng.normal(0, size, n).cumsum().clip(-20, 20)
    place = frame.index[kept:]
    prices = ["open", "high", "low", "close"]
    frame.loc[place, prices] = frame.loc[place, prices].mul(np.exp(walk), axis=0)
    frame.loc[place, "volume"] *= rng.lognormal(0, 1, n)
    yield "rewritten", replace(bars, frame=frame, states=None)


def _changes(whole: Views, other: Views, until: int, future: str) -> Iterator[dict]:
    """What differs in the rows known at a time, for each output."""
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
        description="Check that a detector never looks ahead, and see how much hindsight changes.",
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    add("--model", required=True, help="models:/..., runs:/..., a run's id, a folder or a file")
    add("--bars", type=Path, required=True, help="bars: CSV, gzip or Parquet")
    add_read_options(parser)
    add(
        "--times",
        type=whole(1, 100_000),
        default=20,
        help="random times to change the future at (default: 20)",
    )
    add("--seed", type=whole(0, 2**64), default=0, help="of the random times (default: 0)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Check, print the table and the verdict; gives the exit status."""
    from hmm_exp.market.load import read_bars
    from hmm_exp.serving.lookup import find_detector

    detector = with_read_options(find_detector(args.model), args)
    bars = read_bars(args.bars, detector.reading, needs=detector.recipe.needs)
    show_reading(bars.report, detector)
    table = check_causality(detector, bars, args.times, args.seed)
    shown = table.reset_index()
    shown["largest_change"] = shown["largest_change"].map("{:.3g}".format)
    shown["newest_changed"] = shown["newest_changed"].map("{:.0%}".format)
    print(shown.to_string(index=False), end="\n\n")
    for output, share in hindsight(detector, bars).items():
        print(f"{output}: {share:.1%} of all labels are not those that were known live")
    if table["largest_change"].xs("filtered", level="output").max() > 0:
        print("filtered answers changed: this detector looks ahead")
        return LOOKS_AHEAD
    print(f"filtered answers never changed, at {args.times} times; use those for live decisions")
    return DONE


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input is one line on standard error."""
    return exit_status(run, parse(argv))


if __name__ == "__main__":
    sys.exit(main())
