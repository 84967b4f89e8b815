"""Shares of simulated markets that pass the gate, and the numbers of states chosen, in two tables.

    nice python -m benchmarks.character [--markets 200] [--cv 200] [--bars 8000] [--seed 0]

Markets without regimes (independent Student-t returns; GARCH(1,1) with Student-t errors) and with
two and three planted ones: see `markets.py`. Every market goes through `experiment.run` in two
observation spaces, v1 and the return alone, with one to five states; inside a space the lowest BIC
chooses, between the two the return gain on validation, as in a sweep over both; then the gate
judges the winner, and the best of each space. "true model" is the share of planted markets in
which the model that made the returns, filtering them with its true parameters, would show the two
gains that the strict gate asks for: a fit cannot do much better.

The second table is of the numbers of states that BIC, ICL and cross-validation with one standard
error choose; cross-validation, most of the work, is done for the first --cv markets of each kind.
One JSON line per market goes to --out as it is done; the same command goes on where it was stopped.
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities import Run, RunData, RunInfo, RunTag

from benchmarks.markets import KINDS, PLANTED, true_scores
from hmm_exp.config import Config, DataConfig, FeaturesConfig, ModelConfig, SelectionConfig, checked
from hmm_exp.errors import HmmExpError
from hmm_exp.experiment.assess import baselines_of
from hmm_exp.experiment.prepare import Prepared, prepare
from hmm_exp.experiment.result import RunResult
from hmm_exp.experiment.run import run
from hmm_exp.experiment.select import select
from hmm_exp.judge.gains import estimate_gain
from hmm_exp.judge.split import TEST
from hmm_exp.market.gaps import chain_steps
from hmm_exp.parallel import cores
from hmm_exp.registry.evidence import Evidence
from hmm_exp.registry.gate import judge, named_gate
from hmm_exp.sweep.leaderboard import common_scores
from hmm_exp.tracking import tags

STATES = (1, 2, 3, 4, 5)
SPACES = {
    "v1": FeaturesConfig(name="v1"),
    "returns": FeaturesConfig(name="returns"),
}
GATES = ("default", "strict")
CRITERIA = {
    "BIC": SelectionConfig(within="bic"),
    "ICL": SelectionConfig(within="icl"),
    "CV": SelectionConfig(within="cv", rule="one_se", cv_blocks=5),
}


def examine(kind: str, n_bars: int, seed: int, cross_validated: bool) -> dict:
    """One market through the product: what was chosen, and what the gates say."""
    began = time.process_time()
    bars = KINDS[kind](n_bars=n_bars, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "market.parquet"
        bars.frame.reset_index(drop=True).to_parquet(path)
        results = {s: _run(path, features, cross_validated) for s, features in SPACES.items()}
    found = {space: r for space, r in results.items() if isinstance(r, RunResult)}
    record: dict = {"kind": kind, "bars": n_bars, "seed": seed}
    record["cross_validated"] = cross_validated
    record["states"] = {space: _states_chosen(result) for space, result in found.items()}
    record["errors"] = {space: str(r) for space, r in results.items() if space not in found}
    winner = _winner(found)
    record["winner"] = winner
    record["verdicts"] = {space: _verdicts(result) for space, result in found.items()}
    record["gains"] = {space: _gains(result) for space, result in found.items()}
    record["truth"] = _truth(kind, next(iter(found.values())).prepared) if found else {}
    record["seconds"] = round(time.process_time() - began, 2)
    return record


def _run(path: Path, features: FeaturesConfig, cross_validated: bool) -> RunResult | HmmExpError:
    config = Config(
        data=DataConfig(kind="bars", path=str(path), bar_stamp="open", name="market"),
        features=features,
        model=ModelConfig(state_grid=list(STATES)),
        selection=SelectionConfig(cv_blocks=5 if cross_validated else 0),
    )
    config.compute.threads = 1
    try:
        return run(prepare(checked(config)))
    except HmmExpError as error:
        return error


def _states_chosen(result: RunResult) -> dict[str, int]:
    known = [n for n, how in CRITERIA.items() if how.within in result.candidates[0].criteria]
    return {name: select(result.candidates, CRITERIA[name]).n_states for name in known}


def _winner(found: dict[str, RunResult]) -> str | None:
    """Space of the sweep's winner: the eligible one with the higher gain on validation."""
    spaces = [space for space, result in found.items() if not result.faults]
    if len(spaces) < 2:
        return spaces[0] if spaces else None
    scores = [_scores(found[space], "val") for space in spaces]
    means = common_scores(scores, SelectionConfig().across).mean().to_numpy()
    return spaces[int(means.argmax())]


def _scores(result: RunResult, part: str) -> pd.DataFrame:
    scores = result.assessment.scores
    assert scores is not None
    return scores[scores["split"] == part].set_index("available_at")


def _verdicts(result: RunResult) -> dict[str, list[str]]:
    """What each gate has against a run; nothing means that it passes."""
    evidence = evidence_of(result)
    return {
        name: judge(None, evidence, None, named_gate(name)).of("final", "refuse") for name in GATES
    }


def evidence_of(result: RunResult) -> Evidence:
    """What the gate would read of a run's record, without a store."""
    run_tags = [RunTag(tags.INSTRUMENT, "market"), RunTag(tags.DATA_KIND, "bars")]
    if result.faults:
        run_tags.append(RunTag(tags.FAULTS, "; ".join(result.faults)))
    info = RunInfo("", "", "", "FINISHED", 0, 0, "active")
    rows = result.regimes[result.regimes["split"] == "test"]
    time_of_rows = pd.DatetimeIndex(rows["available_at"]).as_unit("ns").asi8
    detector = result.detector
    return Evidence(
        run=Run(info, RunData(tags=run_tags)),
        detector=detector,
        scores=_scores(result, "test"),
        trained_until=None,
        states=rows["state"].to_numpy(np.int64),
        steps=chain_steps(time_of_rows, detector.row_step.value, detector.gaps),
    )


def _gains(result: RunResult) -> dict[str, float]:
    names = ("return_gain_test", "ewma_gain_test", "ewma_gain_test_error")
    return {name: result.metrics[name] for name in names if name in result.metrics}


def _truth(kind: str, prepared: Prepared) -> dict:
    """Gains of the true model on test, and whether they would do for the strict gate."""
    returns, baselines = prepared.source.next_return, baselines_of(prepared)
    if kind not in PLANTED or returns is None or baselines is None:
        return {}
    true = true_scores(PLANTED[kind], returns)
    test, gate = prepared.target_part == TEST, named_gate("strict")
    ones = np.ones((len(returns), 1))
    over = {
        "return_gain": true - baselines.static.log_score(ones, returns),
        "ewma_gain": true - baselines.volatility["ewma"].log_score(prepared.series),
    }
    shown = {name: estimate_gain(gain[test], level=gate.level) for name, gain in over.items()}
    passes = all(estimate is not None and estimate.bound > 0 for estimate in shown.values())
    return {"passes": passes} | {n: e.mean for n, e in shown.items() if e is not None}


def work(args: argparse.Namespace) -> Iterator[dict]:
    """All records, those of an earlier run first; a new one is written before it is given."""
    wanted = [
        (k, args.bars, args.seed + i, i < args.cv) for i in range(args.markets) for k in KINDS
    ]
    known = {_market(r): r for r in _read(args.out)}  # the last line of a market counts
    done = [
        job for job in wanted if job[:3] in known and known[job[:3]]["cross_validated"] >= job[3]
    ]
    yield from (known[job[:3]] for job in done)
    left = [job for job in wanted if job not in done]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for finished in as_completed([pool.submit(examine, *job) for job in left]):
            with args.out.open("a") as file:
                file.write(json.dumps(finished.result()) + "\n")
            yield finished.result()


def _market(record: dict) -> tuple[str, int, int]:
    return record["kind"], record["bars"], record["seed"]


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tables(records: Iterable[dict]) -> str:
    """Both tables as markdown."""
    by_kind = {kind: [r for r in records if r["kind"] == kind] for kind in KINDS}
    lines = [
        "| markets | number | default | strict | true model | v1: default | strict "
        "| returns: default | strict | won by v1 | gain over EWMA, true model's |",
        "|" + "---|" * 11,
    ]
    lines += [_gate_line(kind, of) for kind, of in by_kind.items() if of]
    lines += [
        "",
        "| markets | space | criterion | number | " + " | ".join(f"K={k}" for k in STATES) + " |",
    ]
    lines.append("|" + "---|" * (4 + len(STATES)))
    for kind, of in by_kind.items():
        for space in SPACES:
            lines += [_states_line(kind, space, name, of) for name in CRITERIA if of]
    return "\n".join(lines)


def _gate_line(kind: str, of: list[dict]) -> str:
    cells = [
        kind,
        str(len(of)),
        *(_share(passes(r, r["winner"], gate) for r in of) for gate in GATES),
    ]
    cells.append(_share(r["truth"]["passes"] for r in of) if kind in PLANTED else "")
    cells += [_share(passes(r, space, gate) for r in of) for space in SPACES for gate in GATES]
    cells.append(_share(r["winner"] == "v1" for r in of))
    won = [r["gains"][r["winner"]]["ewma_gain_test"] for r in of if r["winner"]]
    true = [r["truth"]["ewma_gain"] for r in of if r["truth"]]
    gain = f"{np.mean(won):+.4f}" if won else ""
    cells.append(gain + (f", {np.mean(true):+.4f}" if true else ""))
    return f"| {' | '.join(cells)} |"


def passes(record: dict, space: str | None, gate: str) -> bool:
    """Whether a space's winner gets through a gate."""
    return space in record["verdicts"] and not record["verdicts"][space][gate]


def _share(those: Iterable[bool]) -> str:
    those = list(those)
    return f"{100 * np.mean(those):.1f} %"


def _states_line(kind: str, space: str, name: str, of: list[dict]) -> str:
    chosen = Counter(r["states"][space][name] for r in of if name in r["states"].get(space, {}))
    n = chosen.total()
    shares = [f"{100 * chosen[k] / n:.0f} %" if n else "" for k in STATES]
    return f"| {kind} | {space} | {name} | {n} | {' | '.join(shares)} |"


def main() -> None:
    """Examine all markets, with a line for each, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=200, help="of each kind")
    parser.add_argument("--cv", type=int, default=200, help="of these, cross-validated")
    parser.add_argument("--bars", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0, help="of the first market of each kind")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=Path("character.jsonl"))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    began, records = time.perf_counter(), []
    for record in work(args):
        records.append(record)
        verdict = {g: passes(record, record["winner"], g) for g in GATES}
        print(
            f"{len(records)}/{args.markets * len(KINDS)} {record['kind']} {record['seed']}: "
            f"{record['winner']} passes {[g for g in GATES if verdict[g]]} "
            f"({record['seconds']} s, {time.perf_counter() - began:.0f} s so far)",
            flush=True,
        )
    print(tables(records))


if __name__ == "__main__":
    main()
