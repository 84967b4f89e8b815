"""Time of a walk forward of fifty fits: v1, 2 to 5 states, ten starts first, warm after.

    python benchmarks/walk_forward.py --bars bars.csv [--stamp open] [--fits 50] [--starts 10]

Compiled code is loaded by a short walk before the clock starts. Prints one line per number of
states, each as a run of its own, and one for all of them in one run (`model.state_grid`).
"""

import argparse
import time
from collections.abc import Sequence

from hmm_exp.config import Config, DataConfig, FeaturesConfig, ModelConfig, SplitConfig, checked
from hmm_exp.experiment.prepare import prepare
from hmm_exp.experiment.result import RunResult
from hmm_exp.experiment.run import run

STATES = (2, 3, 4, 5)


def main() -> None:
    """Time the walks one by one and together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bars", required=True, help="CSV of hourly bars")
    parser.add_argument("--stamp", default="open", help="what its stamps mark: open or close")
    parser.add_argument("--fits", type=int, default=50)
    parser.add_argument("--starts", type=int, default=10, help="of the first fit")
    parser.add_argument("--fresh", type=int, default=2, help="fresh starts of every refit")
    args = parser.parse_args()
    data = DataConfig(kind="bars", path=args.bars, bar_stamp=args.stamp)
    n_bars = len(prepare(Config(data=data)).source.time)
    split = SplitConfig(kind="walk_forward", train=0.4, val=0.3, test=0.3)
    split.refit_every, split.refit_starts = -(-round(0.6 * n_bars) // args.fits), args.fresh
    config = Config(data=data, features=FeaturesConfig(name="v1"), split=split)
    walk(Config(data=DataConfig(n_bars=3000), split=SplitConfig(kind="walk_forward")), [2], 1)
    total = 0.0
    for grid in ([[k] for k in STATES]) + [list(STATES)]:
        cpu = time.process_time()
        result, seconds = walk(config, grid, args.starts)
        total += seconds if len(grid) == 1 else 0.0
        print(line(result, grid, seconds, time.process_time() - cpu), flush=True)
    print(f"the {len(STATES)} runs after each other: {total:.1f} s")


def walk(config: Config, grid: Sequence[int], n_init: int) -> tuple[RunResult, float]:
    """Give a run and its seconds, features included."""
    config.model = ModelConfig(state_grid=list(grid), n_init=n_init)
    started = time.perf_counter()
    result = run(prepare(checked(config)))
    return result, time.perf_counter() - started


def line(result: RunResult, grid: Sequence[int], seconds: float, cpu: float) -> str:
    """One run in one line."""
    metrics = result.metrics
    return (
        f"K={','.join(map(str, grid)):8} {seconds:6.1f} s (cpu {cpu:.1f})  "
        f"chosen {result.n_states}  "
        f"{metrics['n_refits']:.0f} fits, {metrics['n_refits_refused']:.0f} refused, labels agree "
        f"{metrics['label_agreement']:.3f} (least {metrics['label_agreement_min']:.3f})  "
        f"gain val {metrics['return_gain_val']:+.4f} test {metrics['return_gain_test']:+.4f}  "
        f"over EWMA {metrics['ewma_gain_val']:+.4f} {metrics['ewma_gain_test']:+.4f}"
    )


if __name__ == "__main__":
    main()
