"""Shares of simulated markets that pass the gate, and the numbers of states chosen, in two tables.

    nice python -m benchmarks.character [--markets 200] [--sweeps 200] [--harder 30] [--seed 0]

Markets without regimes (independent Student-t returns; GARCH(1,1) with Student-t errors) and with
two and three planted ones: see `markets.py`. Every market goes through `experiment.run` with one to
five states: in v1, v2 and range, as one sweep, in the return alone, and in range on 1H with 4H.
Inside a space the lowest BIC chooses, between v1, v2 and range the return gain on validation; then
the gate judges the winner, and the best of each space. "true model" is the share of planted markets
in which the model that made the returns, filtering them with its true parameters, would show the
two gains that the strict gate asks for: a fit cannot do much better. The harder markets, and those
of a number above --sweeps, go through range alone, and independent returns also through 1H with 4H.

The second table is of the numbers of states that BIC, ICL, the next return and cross-validation
with one standard error choose; cross-validation, most of the work, is done for the first --cv
markets of each kind. One JSON line per market goes to --out as it is done; the same command goes on
where it was stopped.
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

from benchmarks.markets import HARDER, KINDS, PLANTED, RIGHT, true_scores
from hmm_exp.config import (
    Config,
    DataConfig,
    FeaturesConfig,
    ModelConfig,
    SelectionConfig,
    TimeframeConfig,
    checked,
)
from hmm_exp.errors import HmmExpError
from hmm_exp.experiment.assess import baselines_of
from hmm_exp.experiment.prepare import Prepared, prepare
from hmm_exp.experiment.result import RunResult
from hmm_exp.experiment.run import run
from hmm_exp.experiment.select import select
from hmm_exp.judge.gains import estimate_gain
from hmm_exp.judge.split import TEST
from hmm_exp.market.bars import Bars
from hmm_exp.market.gaps import chain_steps
from hmm_exp.parallel import cores
from hmm_exp.registry.evidence import Evidence
from hmm_exp.registry.gate import judge, named_gate
from hmm_exp.sweep.leaderboard import common_scores
from hmm_exp.tracking import tags

STATES = (1, 2, 3, 4, 5)
SWEEP = ("v1", "v2", "range")
MULTI = "range 1H+4H"
SPACES = {name: (name, ["1H"]) for name in (*SWEEP, "returns")} | {MULTI: ("range", ["1H", "4H"])}
GATES = ("default", "strict", "strictest")
CRITERIA = {
    "BIC": SelectionConfig(within="bic"),
    "ICL": SelectionConfig(within="icl"),
    "next return": SelectionConfig(within="bic_next"),
    "CV": SelectionConfig(within="cv", rule="one_se", cv_blocks=5),
}


def examine(kind: str, n_bars: int, seed: int, swept: bool, cross_validated: bool) -> dict:
    """One market through the product: what was chosen, and what the gates say.

    Not `swept`, it goes through range alone.
    """
    began = time.process_time()
    bars = (KINDS | HARDER)[kind](n_bars=n_bars, seed=seed)
    alone = ("range", MULTI) if kind == "iid" else ("range",)
    spaces = tuple(SPACES) if swept else alone
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "market.parquet"
        bars.frame.reset_index(drop=True).to_parquet(path)
        results = {space: _run(path, space, cross_validated) for space in spaces}
    found = {space: r for space, r in results.items() if isinstance(r, RunResult)}
    record: dict = {"kind": kind, "bars": n_bars, "seed": seed}
    record |= {"swept": swept, "cross_validated": cross_validated}
    record["states"] = {space: _states_chosen(result) for space, result in found.items()}
    record["errors"] = {space: str(r) for space, r in results.items() if space not in found}
    record["doubts"] = {space: bool(result.prepared.bic_doubt) for space, result in found.items()}
    in_sweep = {space: found[space] for space in SWEEP if space in found}
    record["winner"] = _winner(in_sweep) if swept else None
    record["accuracy"] = {space: _accuracy(result, bars) for space, result in found.items()}
    record["verdicts"] = {space: _verdicts(result) for space, result in found.items()}
    record["gains"] = {space: _gains(result) for space, result in found.items()}
    record["truth"] = _truth(kind, next(iter(found.values())).prepared) if found else {}
    record["seconds"] = round(time.process_time() - began, 2)
    return record


def _accuracy(result: RunResult, bars: Bars) -> float | None:
    """Balanced accuracy of the filtered states on test; None where their number is wrong."""
    test = result.regimes[result.regimes["split"] == "test"]
    true = pd.Series(bars.states, bars.frame.index).loc[test["available_at"]].to_numpy()
    present = np.unique(true)
    if result.n_states < 2 or result.n_states <= true.max():
        return None
    own = test["state"].to_numpy()
    return float(np.mean([(own[true == k] == k).mean() for k in present]))


def _run(path: Path, space: str, cross_validated: bool) -> RunResult | HmmExpError:
    features, timeframes = SPACES[space]
    config = Config(
        data=DataConfig(kind="bars", path=str(path), bar_stamp="open", name="market"),
        features=FeaturesConfig(name=features),
        timeframe=TimeframeConfig("+".join(timeframes), timeframes),
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
    """Space of the sweep's winner: the eligible one with the highest gain on validation."""
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
        labels=detector.labels,
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
    numbers = dict.fromkeys(KINDS, args.markets) | dict.fromkeys(HARDER, args.harder)
    wanted = [
        (kind, args.bars, args.seed + i, i < args.sweeps and kind in KINDS, i < args.cv)
        for i in range(max(numbers.values()))
        for kind, number in numbers.items()
        if i < number
    ]
    known = {_market(r): r for r in _read(args.out)}  # the last line of a market counts
    done = [job for job in wanted if job[:3] in known and _covers(known[job[:3]], job)]
    yield from (known[job[:3]] for job in done)
    left = [job for job in wanted if job not in done]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for finished in as_completed([pool.submit(examine, *job) for job in left]):
            with args.out.open("a") as file:
                file.write(json.dumps(finished.result()) + "\n")
            yield finished.result()


def _covers(record: dict, job: tuple) -> bool:
    return record["swept"] >= job[3] and record["cross_validated"] >= job[4]


def _market(record: dict) -> tuple[str, int, int]:
    return record["kind"], record["bars"], record["seed"]


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tables(records: Iterable[dict]) -> str:
    """Both tables as markdown."""
    by_kind = {kind: [r for r in records if r["kind"] == kind] for kind in KINDS | HARDER}
    columns = ["markets", "number", *GATES, "true model"]
    columns += [f"{space}: {gate}" for space in ("v1", "range", "returns") for gate in GATES]
    columns += ["won by range", "gain over EWMA, true model's", "range: right K", "accuracy"]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [_gate_line(kind, of) for kind, of in by_kind.items() if of]
    lines += [
        "",
        "| markets | space | criterion | number | " + " | ".join(f"K={k}" for k in STATES) + " |",
    ]
    lines.append("|" + "---|" * (4 + len(STATES)))
    for kind, of in by_kind.items():
        for space in SPACES:
            lines += [_states_line(kind, space, name, of) for name in CRITERIA if _any(of, space)]
    doubtful = sum(r["doubts"].get(MULTI, False) for r in records)
    lines += ["", f"{MULTI}: the verdict says that BIC cannot choose in {doubtful} markets"]
    return "\n".join(lines)


def _any(of: list[dict], space: str) -> bool:
    return any(space in r["states"] for r in of)


def _gate_line(kind: str, of: list[dict]) -> str:
    swept = [r for r in of if r["swept"]]
    cells = [
        kind,
        str(len(of)),
        *(_share(passes(r, r["winner"], gate) for r in swept) for gate in GATES),
    ]
    cells.append(_share(r["truth"]["passes"] for r in of) if kind in PLANTED else "")
    cells += [
        _share(passes(r, space, gate) for r in of if space in r["states"])
        for space in ("v1", "range", "returns")
        for gate in GATES
    ]
    cells.append(_share(r["winner"] == "range" for r in swept))
    won = [r["gains"][r["winner"]]["ewma_gain_test"] for r in of if r["winner"]]
    true = [r["truth"]["ewma_gain"] for r in of if r["truth"]]
    gain = f"{np.mean(won):+.4f}" if won else ""
    cells.append(gain + (f", {np.mean(true):+.4f}" if true else ""))
    cells.append(f"{sum(_is_right(r) for r in of)} of {len(of)}" if kind in RIGHT else "")
    found = [a for r in of if (a := r["accuracy"].get("range")) is not None and _is_right(r)]
    cells.append(f"{np.mean(found):.3f}" if found and kind != "iid" else "")
    return f"| {' | '.join(cells)} |"


def passes(record: dict, space: str | None, gate: str) -> bool:
    """Whether a space's winner gets through a gate."""
    return space in record["verdicts"] and not record["verdicts"][space][gate]


def _is_right(record: dict) -> bool:
    """Whether BIC finds the true number of states on range."""
    return record["states"].get("range", {}).get("BIC") == RIGHT.get(record["kind"])


def _share(those: Iterable[bool]) -> str:
    those = list(those)
    return f"{100 * np.mean(those):.1f} % of {len(those)}" if those else ""


def _states_line(kind: str, space: str, name: str, of: list[dict]) -> str:
    chosen = Counter(r["states"][space][name] for r in of if name in r["states"].get(space, {}))
    n = chosen.total()
    shares = [f"{100 * chosen[k] / n:.0f} %" if n else "" for k in STATES]
    return f"| {kind} | {space} | {name} | {n} | {' | '.join(shares)} |"


def main() -> None:
    """Examine all markets, with a line for each, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=200, help="of each kind")
    parser.add_argument("--sweeps", type=int, default=200, help="of these, through every space")
    parser.add_argument("--harder", type=int, default=30, help="of each harder kind")
    parser.add_argument("--cv", type=int, default=0, help="of these, cross-validated")
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
            f"{len(records)} {record['kind']} {record['seed']}: "
            f"{record['winner']} passes {[g for g in GATES if verdict[g]]} "
            f"({record['seconds']} s, {time.perf_counter() - began:.0f} s so far)",
            flush=True,
        )
    print(tables(records))


if __name__ == "__main__":
    main()
