"""The reality check after a search: how often it finds skill where there is none.

    nice python -m benchmarks.search_luck [--markets 400]

None of 60 x 10 possible cells has a gain. Neighbours are alike: a cell's gain per bar is a smooth
mix of independent series (Gaussian weights, 6 and 2 cells wide), Student-t with 5 degrees of
freedom, over 1,000 bars. Three ways to try at most 20 or 60 cells of one market:

grid      equally spaced cells, chosen beforehand
random    the proposals of a search that sees no results
search    Optuna's TPE on the mean gain, ten random trials first, as `hydra/sweeper=optuna`

Each is followed by the reality check of its distinct cells. Printed: the share of markets where
White's p is at most .05, with its standard error.
"""

import argparse
import math
import warnings

import numpy as np
import optuna

from hmm_exp.judge.gains import reality_check

SHAPE, WIDTHS, N_BARS, LEVEL = (60, 10), (6.0, 2.0), 1000, 0.05
SPACE = {"a": optuna.distributions.IntDistribution(0, SHAPE[0] - 1)} | {
    "b": optuna.distributions.IntDistribution(0, SHAPE[1] - 1)
}


def mixing(n: int, width: float) -> np.ndarray:
    """Weights (n, n) that make neighbours alike and leave the variance at one."""
    place = np.arange(n)
    weights = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    return weights / np.sqrt((weights**2).sum(axis=1, keepdims=True))


def market(rng: np.random.Generator) -> np.ndarray:
    """Gains of all possible cells, (a, b, bars); their mean is zero."""
    noise = rng.standard_t(5, (*SHAPE, N_BARS))
    return np.einsum(
        "ai,bj,ijt->abt",
        mixing(SHAPE[0], WIDTHS[0]),
        mixing(SHAPE[1], WIDTHS[1]),
        noise,
        optimize=True,
    )


def spaced(n: int) -> list[tuple[int, int]]:
    """Cells of a grid of n, equally spaced."""
    n_b = 2 if n < 40 else 4
    columns = np.linspace(0, SHAPE[0] - 1, n // n_b).round().astype(int)
    rows = np.linspace(1, SHAPE[1] - 2, n_b).round().astype(int)
    return [(int(a), int(b)) for a in columns for b in rows]


def searched(means: np.ndarray, n: int, seed: int, results: bool) -> list[tuple[int, int]]:
    """Distinct cells that a search of n trials tries."""
    kind = optuna.samplers.TPESampler if results else optuna.samplers.RandomSampler
    study = optuna.create_study(direction="maximize", sampler=kind(seed=seed))
    cells = []
    for _ in range(n):
        trial = study.ask(SPACE)
        cells.append((trial.params["a"], trial.params["b"]))
        study.tell(trial, means[cells[-1]])
    return list(dict.fromkeys(cells))


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=400)
    n_markets = parser.parse_args().markets
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    lucky: dict[tuple[str, int], list[bool]] = {}
    for seed in range(n_markets):
        gains = market(np.random.default_rng(seed))
        means = gains.mean(axis=2)
        for n in (20, 60):
            ways = {
                "grid": spaced(n),
                "random": searched(means, n, seed, results=False),
                "search": searched(means, n, seed, results=True),
            }
            for way, cells in ways.items():
                check = reality_check(np.array([gains[cell] for cell in cells]), n_draws=500)
                lucky.setdefault((way, n), []).append(check.p_white <= LEVEL)
    for (way, n), found in lucky.items():
        share = float(np.mean(found))
        error = math.sqrt(share * (1 - share) / len(found))
        print(f"{way:7} {n:3} trials: p <= {LEVEL} in {100 * share:.1f} % (+-{100 * error:.1f})")


if __name__ == "__main__":
    main()
