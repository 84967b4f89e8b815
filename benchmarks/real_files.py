"""Gains of v1, v2 and range over every baseline on files of real bars, as a table.

    nice python -m benchmarks.real_files BTC.csv:open:split:1H dax.csv:open:bridge:1D

A file is named with the meaning of its times, its gaps and the timeframe. S&P 500 and NASDAQ, daily
1999 to 2018, come with the package `arch`. Each feature set is fitted with the numbers of states
(--states 2 3 4 5), BIC chooses, and the test part judges: mean gain in nats per bar and, in
brackets, its lower bound at 2.5 %. A gain whose bound is above 0 is marked with *.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from arch.data import nasdaq, sp500

from hmm_exp.config import (
    Config,
    DataConfig,
    FeaturesConfig,
    ModelConfig,
    TimeframeConfig,
    checked,
)
from hmm_exp.errors import HmmExpError
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.result import RunResult
from hmm_exp.experiment.run import run

SETS = ("v1", "v2", "range")


def configured(data: DataConfig, features: str, timeframe: str, states: list[int]) -> Config:
    """The defaults on a file, with a grid of states inside one run."""
    return Config(
        data=data,
        features=FeaturesConfig(name=features),
        timeframe=TimeframeConfig(timeframe, [timeframe]),
        model=ModelConfig(state_grid=states),
    )


def files(named: list[str], folder: Path) -> Iterator[tuple[str, DataConfig, str]]:
    """Name, data settings and timeframe of every file."""
    for text in named:
        path, stamp, gaps, timeframe = text.rsplit(":", 3)
        data = DataConfig(kind="bars", path=path, bar_stamp=stamp, gaps=gaps, bad_rows="drop")
        yield Path(path).stem, data, timeframe
    for name, module in (("S&P 500", sp500), ("NASDAQ", nasdaq)):
        path = folder / f"{name}.csv"
        module.load().to_csv(path, index_label="date")
        yield name, DataConfig(kind="bars", path=str(path), bar_stamp="open", gaps="bridge"), "1D"


def gains(result: RunResult) -> dict[str, str]:
    """Mean and lower bound of every gain of the return forecast on test, by baseline."""
    metrics = result.metrics
    names = [name.removesuffix("_test") for name in metrics if name.endswith("gain_test")]
    shown = {}
    for name in names:
        bound = metrics.get(f"{name}_test_bound", np.nan)
        if "variance" not in name:
            mark = "*" if bound > 0 else ""
            shown[name] = f"{metrics[f'{name}_test']:+.4f} ({bound:+.4f}){mark}"
    return shown


def main() -> None:
    """Print a line of the table for every file and feature set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="PATH:STAMP:GAPS:TIMEFRAME")
    parser.add_argument("--states", type=int, nargs="+", default=[2, 3, 4, 5])
    args = parser.parse_args()
    lines: list[tuple[str, str, str, dict[str, str]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, data, timeframe in files(args.files, Path(folder)):
            for features in SETS:
                try:
                    result = run(
                        prepare(checked(configured(data, features, timeframe, args.states)))
                    )
                except HmmExpError as error:
                    lines.append((name, features, str(error)[:60], {}))
                    continue
                states = f"{result.n_states}{' (refused)' if result.faults else ''}"
                lines.append((name, features, states, gains(result)))
    columns = list(dict.fromkeys(column for line in lines for column in line[3]))
    print(f"| bars | features | K | {' | '.join(columns)} |")
    print("|" + "---|" * (3 + len(columns)))
    for *cells, shown in lines:
        print(f"| {' | '.join([*cells, *(shown.get(column, '') for column in columns)])} |")


if __name__ == "__main__":
    main()
