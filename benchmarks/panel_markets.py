"""Panels of simulated markets, each through features, fits and choice: false promotions and power.

    nice python -m benchmarks.panel_markets [--panels 200] [--kinds iid factor planted]

A panel has 50 symbols of hourly bars that end together. The history is 3,600 bars, that of a third
of the symbols 2,500 to 3,600. Prices walk within the bar, so high and low belong to the path.

iid        independent returns, normal or Student-t with 3, 4 or 8 degrees of freedom: worthless
factor     the same, where half of the variance of each symbol is one common series of such bars
planted    40 independent worthless symbols, and 10 with two regimes whose volatilities differ by a
           factor of 2, 3 or 7 (200 and 100 bars per visit); half as many panels

Every symbol is read from a file and goes through v1 and range with two and three states. Cells with
hard faults, or whose filter never forgets its start, take no part. BIC chooses inside a space, the
gain over the static Student-t on common validation bars between them, as in a sweep. The gain of
the winner on the test bars is what `judge_panel` judges, at a rate of 5 %.

Left out for speed: the gate's rules on test rows and its comparison with a champion, which can only
refuse more; starts beyond the first and iterations beyond 200 (`model.n_init`, `model.n_iter`),
after which a fit counts as not converged; other baselines, figures and strategies. A symbol's
p-value is not drawn where its `bound_p_value` is above the rate already.

One JSON line per panel goes to --out as it is done; the same command goes on where it was stopped.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from benchmarks.panel_fdr import RATE, decisions
from hmm_exp.config import Config, DataConfig, FeaturesConfig, ModelConfig, checked
from hmm_exp.errors import FitError
from hmm_exp.experiment.candidate import Candidate, fit_candidate
from hmm_exp.experiment.decided import burn_in_rows
from hmm_exp.experiment.prepare import Prepared, prepare, recipe_of, volatility_column
from hmm_exp.experiment.select import select
from hmm_exp.features.build import build_features
from hmm_exp.judge.panel import promotions
from hmm_exp.judge.return_forecasts import (
    ReturnDensities,
    fit_return_densities,
    fit_static,
    take_rows,
)
from hmm_exp.judge.split import TEST, TRAIN, VAL
from hmm_exp.market.bars import Bars
from hmm_exp.market.synthetic import MarketPlan, bars_of, make_market, tail_factors, unit_moves
from hmm_exp.parallel import cores
from hmm_exp.sweep.leaderboard import common_scores

N_SYMBOLS, N_PLANTED = 50, 10
N_BARS, FEWEST_BARS = 3600, 2500
VOLATILITY = 0.006  # of an hourly log return
TAILS = (None, 3.0, 4.0, 8.0)  # degrees of freedom; None for normal returns
RATIOS = (2.0, 3.0, 7.0)  # of the volatilities of two planted regimes
SPACES, STATES = ("v1", "range"), (2, 3)
KINDS = {"iid": 0, "factor": 100_000, "planted": 200_000}  # first seeds


def shocks(rng: np.random.Generator, df: float | None) -> np.ndarray:
    """Moves within the bars of unit variance per bar and no regime, (N_BARS, 24)."""
    tails = np.ones(N_BARS) if df is None else tail_factors(rng, N_BARS, df)
    return tails[:, None] * unit_moves(rng, N_BARS)


def worthless_market(rng: np.random.Generator, seed: int, common: np.ndarray | None) -> Bars:
    """Bars of independent returns; half of the variance is that of `common`, (N_BARS, 24)."""
    moves = shocks(rng, TAILS[int(rng.integers(len(TAILS)))])
    if common is not None:
        moves = np.sqrt(0.5) * (moves + common)
    usual, none = np.full(N_BARS, VOLATILITY), np.zeros(N_BARS)
    plan = MarketPlan(none.astype(np.int64), usual, usual, none, moves)
    return bars_of(plan, rng, seed)


def planted_market(seed: int, ratio: float) -> Bars:
    """Bars of two regimes."""
    ends = (VOLATILITY / np.sqrt(ratio), VOLATILITY * np.sqrt(ratio))
    return make_market(N_BARS, 2, seed, volatility=ends)


def panel(kind: str, number: int) -> Iterator[tuple[float, pd.DataFrame]]:
    """Ratio of the regimes' volatilities, 1 where there are none, and the bars of each symbol."""
    rng = np.random.default_rng(KINDS[kind] + number)
    common = shocks(rng, 4.0) if kind == "factor" else None
    for i in range(N_SYMBOLS):
        is_planted = kind == "planted" and i < N_PLANTED
        ratio = RATIOS[(i + number) % len(RATIOS)] if is_planted else 1.0
        seed = int(rng.integers(2**31))
        bars = planted_market(seed, ratio) if is_planted else worthless_market(rng, seed, common)
        first = int(rng.integers(N_BARS - FEWEST_BARS)) if rng.random() < 1.0 / 3.0 else 0
        yield ratio, bars.frame.iloc[first:].reset_index(drop=True)


def prepared_spaces(path: Path) -> Iterator[Prepared]:
    """The rows of every space; the bars are read and split once."""
    config = Config(
        data=DataConfig(kind="bars", path=str(path), bar_stamp="open", name="market"),
        features=FeaturesConfig(name=SPACES[0]),
        model=ModelConfig(n_states=max(STATES), n_init=1, n_iter=200),
    )
    config.compute.threads = 1
    first = prepare(checked(config))
    yield first
    for name in SPACES[1:]:
        yield _in_space(first, replace(config, features=FeaturesConfig(name=name)))


def _in_space(prepared: Prepared, config: Config) -> Prepared:
    bars = prepared.source.bars
    assert bars is not None
    table = build_features(bars, recipe_of(config))
    part = prepared.split.of(table.available_at)
    fresh = replace(
        prepared,
        config=config,
        table=table,
        part=part,
        volatility=volatility_column(table.recipe),
        row_of_bar=table.available_at.searchsorted(prepared.source.time, side="right") - 1,
    )
    return fresh.rescaled(part == TRAIN)


def best_cell(prepared: Prepared) -> Candidate | None:
    """The eligible cell of a space that BIC chooses."""
    cells = []
    for n_states in STATES:
        try:
            cell = fit_candidate(prepared, n_states)
            if not cell.faults:
                burn_in_rows(prepared, cell.posterior)
                cells.append(cell)
        except FitError:
            continue
    return select(cells, prepared.config.selection) if cells else None


def scores_of(prepared: Prepared, cell: Candidate, static: ReturnDensities) -> pd.DataFrame:
    """Log scores of every bar's next return as a run records them, nats, and their parts."""
    returns = prepared.source.next_return
    on_train = np.where(prepared.target_part == TRAIN, returns, np.nan)
    probs = take_rows(cell.posterior.filtered.probs, prepared.row_of_bar)
    found = {
        "model_score": fit_return_densities(probs, on_train).log_score(probs, returns),
        "static_score": static.log_score(np.ones((len(returns), 1)), returns),
        "part": prepared.target_part,
    }
    return pd.DataFrame(found, index=prepared.source.time)


def winner(path: Path) -> tuple[str, pd.DataFrame] | None:
    """Name of a symbol's winner and its gain on test bars; None without an eligible cell."""
    names, scores, static = [], [], None
    for prepared in prepared_spaces(path):
        if (cell := best_cell(prepared)) is None:
            continue
        if static is None:
            on_train = np.where(prepared.target_part == TRAIN, prepared.source.next_return, np.nan)
            static = fit_static(on_train)
        names.append(f"{prepared.config.features.name} K={cell.n_states}")
        scores.append(scores_of(prepared, cell, static))
    if not names:
        return None
    val = [score[score["part"] == VAL] for score in scores]
    place = int(common_scores(val, "return_gain_val").mean().to_numpy().argmax())
    test = scores[place][scores[place]["part"] == TEST]
    gain = test["model_score"] - test["static_score"]
    return names[place], gain.dropna().to_frame("return_gain")


def examine(kind: str, number: int) -> dict:
    """One panel: ratio, winner, mean gain on test and p-value of every symbol."""
    began = time.process_time()
    ratios, names, gains = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "market.parquet"
        for symbol, (ratio, bars) in enumerate(panel(kind, number)):
            bars.to_parquet(path)
            found = winner(path)
            ratios.append(ratio)
            names.append(found[0] if found else None)
            if found:
                gains[symbol] = found[1]
    p = decisions(gains)["p"] if gains else pd.Series(dtype=float)
    means = [
        float(gains[i]["return_gain"].mean()) if i in gains else None for i in range(N_SYMBOLS)
    ]
    return {
        "kind": kind,
        "number": number,
        "ratio": ratios,
        "winner": names,
        "gain": means,
        "p": [float(p[i]) if i in gains else None for i in range(N_SYMBOLS)],
        "seconds": round(time.process_time() - began, 2),
    }


def work(args: argparse.Namespace) -> Iterator[dict]:
    """All records, those of an earlier run first; a new one is written before it is given."""
    sizes = {"iid": args.panels, "factor": args.panels, "planted": max(args.panels // 2, 1)}
    # In turn, so that a run that is stopped has the same share of the panels of every kind.
    turns = sorted((i / sizes[kind], kind, i) for kind in args.kinds for i in range(sizes[kind]))
    wanted = [(kind, number) for _, kind, number in turns]
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    known = {(r["kind"], r["number"]): r for r in map(json.loads, lines)}
    yield from (known[job] for job in wanted if job in known)
    left = [job for job in wanted if job not in known]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for finished in as_completed([pool.submit(examine, *job) for job in left]):
            with args.out.open("a") as file:
                file.write(json.dumps(finished.result()) + "\n")
            yield finished.result()


def report(records: list[dict]) -> str:
    """The results of every kind of panel in lines."""
    lines = []
    for kind in KINDS:
        if of := [record for record in records if record["kind"] == kind]:
            lines += [f"{kind}: {len(of)} panels of {N_SYMBOLS} symbols", *_symbols(of)]
            lines += _planted(of) if kind == "planted" else _worthless(of)
    return "\n".join(lines)


def _promoted(record: dict) -> pd.DataFrame:
    """Promotions by Benjamini-Hochberg and Benjamini-Yekutieli, one row per symbol."""
    table = promotions(pd.Series(record["p"], dtype=float), RATE)
    return pd.DataFrame({"bh": table["promoted"], "by": table["q_by"] <= RATE})


def _symbols(of: list[dict]) -> list[str]:
    """Winners and p-values of the worthless symbols."""
    columns = ("ratio", "winner", "gain", "p")
    table = pd.concat(pd.DataFrame({name: record[name] for name in columns}) for record in of)
    table = table[table["ratio"] == 1.0].astype({"p": float, "gain": float})
    lines = [
        f"  {len(table):,} worthless symbols, {table['winner'].isna().mean():.1%} without an "
        f"eligible cell; p of the others {_low(table['p'].dropna())}"
    ]
    for name, mine in table.groupby("winner"):
        gain = mine["gain"].mean()
        lines.append(f"  {name} wins {len(mine):,}, mean gain {gain:+.5f}; p {_low(mine['p'])}")
    return lines


def _low(p: pd.Series) -> str:
    shares = ", ".join(f"{(p <= limit).mean():.3%}" for limit in (0.05, 0.01, 0.001))
    return f"up to .05, .01, .001 in {shares}"


def _worthless(of: list[dict]) -> list[str]:
    any_ = pd.DataFrame([_promoted(record).any() for record in of])
    return [
        f"  panels that promote a symbol: {_count(any_['bh'])}; by Benjamini-Yekutieli "
        f"{_count(any_['by'])}"
    ]


def _count(those: pd.Series) -> str:
    """A share with its 95 % interval of Clopper & Pearson."""
    k, n = int(those.sum()), len(those)
    low, high = binomtest(k, n).proportion_ci(method="exact")
    return f"{k} of {n} = {k / n:.1%} ({low:.1%} to {high:.1%})"


def _planted(of: list[dict]) -> list[str]:
    false, found = [], []
    for record in of:
        chosen = _promoted(record)["bh"].to_numpy()
        ratio = np.array(record["ratio"])
        false.append(chosen[ratio == 1.0].sum() / max(chosen.sum(), 1))
        found.append(pd.DataFrame({"ratio": ratio, "gain": record["gain"], **_promoted(record)}))
    error = np.std(false) / np.sqrt(len(of))
    lines = [f"  false share of the promoted: {np.mean(false):.2%} (standard error {error:.2%})"]
    table = pd.concat(found).query("ratio > 1")
    for ratio, mine in [*table.groupby("ratio"), ("any", table)]:
        lines.append(
            f"  power, ratio {ratio}: {mine['bh'].mean():.1%} of {len(mine)}, by "
            f"Benjamini-Yekutieli {mine['by'].mean():.1%}; mean gain {mine['gain'].mean():+.4f}"
        )
    return lines


def main() -> None:
    """Examine all panels, with a line for each, then print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panels", type=int, default=200, help="of each worthless kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=Path("panel_markets.jsonl"))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    records = []
    for record in work(args):
        records.append(record)
        n_promoted = int(_promoted(record)["bh"].sum())
        print(
            f"{len(records)} {record['kind']} {record['number']}: promotes {n_promoted} "
            f"({record['seconds']} s)",
            flush=True,
        )
    print(report(records))


if __name__ == "__main__":
    main()
