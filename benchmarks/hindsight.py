"""Labels that later bars change, and criteria of v1 and v2 with 2 to 4 states.

    python benchmarks/hindsight.py [--bars BARS] [--bar-stamp open] [--gaps split] [--timeframe 1H]

A row per feature set and number of states, fitted on train: the share of all rows whose smoothed
or Viterbi label differs from the live one; log-likelihood per bar and BIC, which are of different
observations in v1 and v2; and the gains of the return forecast, which can be compared.
"""

import argparse

import pandas as pd

import hmm_exp
from hmm_exp.causality import hindsight

FIGURES = {
    "log_lik_train_per_bar": "ll/bar",
    "bic": "bic",
    "return_gain_val": "gain_t",
    "ewma_gain_val": "gain_ewma",
}


def settings(args: argparse.Namespace, features: str, n_states: int) -> hmm_exp.Config:
    """Settings of one fit."""
    config = hmm_exp.Config()
    config.features.name = features
    config.model.n_states = n_states
    config.timeframe.name, config.timeframe.timeframes = args.timeframe, [args.timeframe]
    if args.bars:
        config.data.kind, config.data.path = "bars", args.bars
        config.data.bar_stamp, config.data.gaps = args.bar_stamp, args.gaps
        config.data.bad_rows = "drop"
    return hmm_exp.checked(config)


def measure(args: argparse.Namespace, features: str, n_states: int) -> dict[str, object]:
    """One row of the table."""
    prepared = hmm_exp.prepare(settings(args, features, n_states))
    result = hmm_exp.run(prepared)
    found = hindsight(result.detector, prepared.source.bars)
    row: dict[str, object] = {"features": features, "states": n_states}
    row |= {f"{name} differs": f"{100 * share:.1f} %" for name, share in found.items()}
    return row | {short: f"{result.metrics[name]:+.4f}" for name, short in FIGURES.items()}


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", help="bars of any kind (default: the synthetic market)")
    parser.add_argument("--bar-stamp", default="open", choices=("open", "close"))
    parser.add_argument("--gaps", default="split", choices=("split", "bridge"))
    parser.add_argument("--timeframe", default="1H")
    args = parser.parse_args()
    rows = [measure(args, features, k) for features in ("v1", "v2") for k in (2, 3, 4)]
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
