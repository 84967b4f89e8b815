"""How often each kind of start finds the best known optimum: ten starts of each kind per setting.

    python benchmarks/starts.py --bars bars.csv [--states 2,3,4,5,6] [--seeds 1]
        [--kinds quantile,random]

Settings are numbers of states by v1 and v2 by "diag" and "full", on scaled train rows. The best
known optimum of a setting is the best of all starts made here, splits of the solution with one
state fewer included. A kind finds it when the best of its ten starts comes within 0.1 nat of the
objective; its shortfall is what is missing, zero where it is found. "quantile+random" is the
default: the first five of each. The columns are the share of settings where the kind finds it, mean
and largest shortfall in nats, the share of single starts that find it, iterations per start, and
starts that reached the cap.
"""

import argparse
import time

import numpy as np
from em import observations

from hmm_exp.hmm.fit import Search, Start, fit_from
from hmm_exp.hmm.starts import KINDS, starting_points, starts_from

N_STARTS = 10
FOUND = 0.1  # nats
SEARCH = Search(n_iter=2000, tol=1e-3)
MIXED = "quantile+random"


def main() -> None:
    """Print what every setting gives, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", required=True, help="CSV of open-stamped hourly bars")
    parser.add_argument("--states", default="2,3,4,5,6")
    parser.add_argument("--seeds", type=int, default=1, help="repetitions of everything")
    parser.add_argument("--kinds", default=",".join(KINDS), help="quantile,random at least")
    args = parser.parse_args()
    states = [int(word) for word in args.states.split(",")]
    rows: list[dict] = []
    for name in ("v1", "v2"):
        X, steps, volatility = observations(args.bars, name)
        for covariance_type in ("diag", "full"):
            setting = f"{name} {covariance_type}"
            data = X, steps, volatility, covariance_type
            rows += chain(data, states, args.seeds, args.kinds.split(","), setting)
    table(rows)


def chain(data, states, n_seeds, kinds, name) -> list[dict]:
    """All starts for rising numbers of states, each fed by the solution of the one before."""
    X, steps, volatility, covariance_type = data
    rows, before = [], None
    for n_states in states:
        began = time.perf_counter()
        points, owners = [], []
        for seed in range(n_seeds):
            for kind in kinds:
                points += starting_points(
                    X,
                    volatility,
                    n_states=n_states,
                    covariance_type=covariance_type,
                    n_init=N_STARTS,
                    min_covar=1e-3,
                    seed=1000 * seed + KINDS.index(kind),
                    kinds=(kind,),
                )
                owners += [(seed, kind)] * N_STARTS
        points += starts_from(before, n_states)
        fitted = fit_from(points, X, steps, SEARCH)
        before = fitted.params
        best = max(start.objective for start in fitted.starts)
        setting = f"{name} K={n_states}"
        groups = _groups(fitted.starts, owners)
        rows += [_row(setting, kind, starts, best) for kind, starts in groups]
        short = " ".join(
            f"{row['kind']} {row['shortfall']:.1f}" for row in rows if row["setting"] == setting
        )
        spent = time.perf_counter() - began
        print(f"{setting}: best {best:.2f}; short by {short} ({spent:.0f} s)", flush=True)
    return rows


def _groups(starts: list[Start], owners: list[tuple[int, str]]):
    """Kind and its starts, once per seed; the mixture is made of the others' first halves."""
    by_owner: dict[tuple[int, str], list[Start]] = {}
    for start, owner in zip(starts, owners, strict=False):
        by_owner.setdefault(owner, []).append(start)
    for (seed, kind), group in by_owner.items():
        yield kind, group
        if kind == "random":
            half = N_STARTS // 2
            yield MIXED, by_owner[seed, "quantile"][:half] + group[:half]
    if len(starts) > len(owners):
        yield "split", starts[len(owners) :]


def _row(setting: str, kind: str, starts: list[Start], best: float) -> dict:
    objectives = np.array([start.objective for start in starts])
    missing = best - objectives.max()
    return {
        "setting": setting,
        "kind": kind,
        "shortfall": 0.0 if missing <= FOUND else missing,
        "single": float(np.mean(objectives >= best - FOUND)),
        "n_iter": float(np.mean([start.n_iter for start in starts])),
        "capped": sum(start.status != "tolerance" for start in starts),
    }


def table(rows: list[dict]) -> None:
    """Markdown, one line per kind."""
    print("\n| kind | found | mean short | most short | single starts | iterations | capped |")
    print("|---|---|---|---|---|---|---|")
    for kind in (*KINDS, MIXED, "split"):
        own = [row for row in rows if row["kind"] == kind]
        if not own:
            continue
        short = np.array([row["shortfall"] for row in own])
        single, n_iter = (np.mean([row[key] for row in own]) for key in ("single", "n_iter"))
        print(
            f"| {kind} | {np.sum(short == 0)} of {len(own)} | {short.mean():.1f}"
            f" | {short.max():.0f} | {single:.0%} | {n_iter:.0f}"
            f" | {sum(row['capped'] for row in own)} |"
        )


if __name__ == "__main__":
    main()
