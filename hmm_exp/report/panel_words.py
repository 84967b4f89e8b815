"""A panel in words: regimes now, promotions, gains, and what they mean."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hmm_exp.errors import few
from hmm_exp.judge.wording import capitalize, percent
from hmm_exp.report.panel import PanelSubject
from hmm_exp.report.panel_map import SymbolDays
from hmm_exp.report.words import signed
from hmm_exp.tracking import tags

STALE = 14  # days without a bar after which a symbol has ended, if others go on
GROUPS = {  # where symbols are now; the last three have no place between calm and turbulent
    "turbulent": "most turbulent",
    "between": "between",
    "calm": "calmest",
    "single": "single regime",
    "unknown": "unknown",
    "ended": "ended before",
}
_NAMED = 5  # symbols in a sentence
_NOW = ("turbulent", "between", "calm", "single")


@dataclass(frozen=True)
class RegimeNow:
    """The last decided regime of a symbol."""

    group: str  # a key of `GROUPS`
    label: str
    n_states: int
    position: float  # from 0 (calm) to 1 (turbulent), 0.5 of a single regime, NaN if unknown


def regimes_now(subject: PanelSubject) -> dict[str, RegimeNow]:
    """The regime of each symbol at its last bar.

    A symbol whose last bar is more than `STALE` days before the last bar of the panel has ended.
    """
    last = {name: one.day[-1] for name, one in subject.days.items() if len(one.day)}
    end = max(last.values(), default=np.datetime64("NaT"))
    found = {}
    for name, label in subject.symbols[["symbol", "regime"]].itertuples(index=False):
        now = _now(label, subject.days.get(name))
        ended = name in last and (end - last[name]).astype(int) > STALE
        found[name] = RegimeNow("ended", now.label, now.n_states, now.position) if ended else now
    return found


def _now(label: str, days: SymbolDays | None) -> RegimeNow:
    labels = [] if days is None else [*days.labels]
    if label not in labels:
        return RegimeNow("unknown", label, len(labels), math.nan)
    place, highest = labels.index(label), len(labels) - 1
    if highest == 0:
        return RegimeNow("single", label, 1, 0.5)
    group = {0: "calm", highest: "turbulent"}.get(place, "between")
    return RegimeNow(group, label, highest + 1, place / highest)


@dataclass(frozen=True)
class Answer:
    """An answer at the top of the page: the question, the answer, and sentences on it."""

    question: str
    answer: str
    sentences: list[str]


@dataclass(frozen=True)
class PanelSummary:
    """The top of the page."""

    headline: str
    answers: list[Answer]


def summary(subject: PanelSubject, now: Mapping[str, RegimeNow]) -> PanelSummary:
    """Summarise a panel."""
    table = subject.symbols
    in_production = int(table["promoted"].isin(["yes", "already"]).sum())
    n_symbols = len(table)
    counts = pd.Series([one.group for one in now.values()], dtype=str).value_counts()
    turbulent, known = counts.get("turbulent", 0), counts.reindex(_NOW[:3], fill_value=0).sum()
    promoted = f"{in_production or 'none'} of {symbols(n_symbols)} promoted"
    if n_symbols == 1:
        promoted = "its model is promoted" if in_production else "its model is not promoted"
        promoted = f"{table['symbol'].iloc[0]}: {promoted}"
    weather = f"{turbulent} of {known} in the most turbulent regime now" if known else ""
    if known == n_symbols == 1:
        (one,) = now.values()
        weather = f"now in {one.label}"
    headline = ", ".join(filter(None, [promoted, weather]))
    return PanelSummary(
        capitalize(headline),
        [
            Answer("Which are promoted", *_promotions(subject, in_production)),
            Answer("How much better", *_gains(table)),
            Answer("What it means", *_meaning(subject, in_production)),
        ],
    )


def symbols(count: int) -> str:
    """A number of symbols in words."""
    return f"{count:,} symbol" + "s" * (count != 1)


def _promotions(subject: PanelSubject, promoted: int) -> tuple[str, list[str]]:
    table, recorded = subject.symbols, subject.main.data.tags.get(tags.VERDICT, "").splitlines()
    lines = [f"{capitalize(line)}." for line in recorded if not line.startswith("regimes now")]
    if subject.fdr is not None:
        lines.append(
            "A symbol's p-value is the largest among the gains that its gate asks for; q is the "
            "p-value adjusted for the number of symbols. The limit holds for independent symbols, "
            "and for symbols that depend on each other positively."
        )
    already = int((table["promoted"] == "already").sum())
    if already:
        lines.append(f"{already} of them were in Production before.")
    without = [*table.loc[table["winner"] == "", "symbol"]]
    if without:
        lines.append(f"Without a winner: {few(without, _NAMED)}.")
    missing = int(subject.main.data.tags.get(tags.N_SYMBOLS, 0)) - len(table)
    if missing > 0:
        lines.append(f"{capitalize(symbols(missing))} left no run.")
    rate = f" at a false discovery rate of {percent(subject.fdr)}" if subject.fdr else ""
    return f"{promoted or 'None'} of {len(table):,} promoted{rate}", lines


def _gains(table: pd.DataFrame) -> tuple[str, list[str]]:
    names = {
        "gain_val": "Over one static Student-t on validation, where the models were chosen",
        "gain_test": "Over one static Student-t on test",
        "ewma_gain_test": "Over an EWMA volatility forecast on test",
    }
    lines = [*filter(None, (_spread(table[name], text) for name, text in names.items()))]
    on_test = table["gain_test"].dropna()
    if on_test.empty:
        return "not measured on test", lines
    return f"{signed(float(on_test.median()))} nats per bar on test, median", lines


def _spread(gains: pd.Series, what: str) -> str:
    known = gains.dropna()
    if known.empty:
        return ""
    low, middle, high = (signed(float(known.quantile(share))) for share in (0.25, 0.5, 0.75))
    above = f"above zero for {(known > 0).sum():,} of {symbols(len(known))}"
    return f"{what}: median {middle}, quartiles {low} and {high}, {above}."


def _meaning(subject: PanelSubject, promoted: int) -> tuple[str, list[str]]:
    lines = [*_caveats()]
    found = pd.to_numeric(subject.symbols["q_bh"])
    better = 0 if subject.fdr is None else int((found <= subject.fdr).sum())
    if not promoted and better:
        return f"The models of {symbols(better)} are better than luck, and none is promoted", lines
    if not promoted:
        return "No model is better than luck beyond doubt", lines
    if subject.fdr is None:
        return f"The regimes of {symbols(promoted)} forecast the next return", lines
    false = subject.fdr * promoted
    most = (
        f"about {false:.0f}" if false >= 1.5 else "about one" if false > 0.5 else "fewer than one"
    )
    return f"Of {symbols(promoted)} promoted, expect {most} to be luck", lines


def _caveats() -> Iterator[str]:
    yield (
        "Every symbol has a model of its own. Calm and turbulent compare the regimes of one "
        "symbol: the calmest regime of one market may be wilder than the most turbulent of another."
    )
    yield (
        "The parameters were fitted on the train days and know all of them; validation chose the "
        "model. Only test days are new to both."
    )
