r"""The verdict in two sentences, for the terminal, the report and the UI: what won, and what for.

>>> print(*verdict_lines(client, winner, cells, parent.data.metrics), sep="\n")
Five regimes, best model v1@1H diag K=5: at most five tried; two to five forecast about equally
believe it? In part: on test it forecasts the next bar better than the static Student-t (+0.0373...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from hmm_exp.judge.gains import MIN_BARS, estimate_gain
from hmm_exp.judge.unscored import FORECASTS, OTHERS, why_no_gain
from hmm_exp.judge.wording import AS_WELL, BETTER, WORSE, WordedGain, listed
from hmm_exp.tracking import tags
from hmm_exp.tracking.read import read_validation, unscored_of
from hmm_exp.tracking.runs import called, lacks, tried

LUCKY = 0.05  # p-value from which the best of many cells may be luck
BASELINES = {"return": "static", "ewma": "ewma", **{name: name for name in OTHERS}}  # of metrics
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class StatesTried:
    """The winner's number of states and the others of its observation space."""

    chosen: int
    tried: frozenset[int]  # numbers of states above one, `chosen` included
    # Other numbers by the word for their forecast of the next return on validation against the
    # winner's: `BETTER`, `AS_WELL` or `WORSE`.
    forecasts: Mapping[int, str] = field(default_factory=dict)
    elsewhere: frozenset[int] = frozenset()  # numbers above one that other spaces tried

    @property
    def notes(self) -> list[str]:
        """Limits of the choice: the edge of what was tried, and numbers that are no worse."""
        notes = [self._edge()] if self._edge() else []
        equal = [n for n, word in self.forecasts.items() if word == AS_WELL]
        if equal:
            notes.append(f"{_numbers([self.chosen, *equal])} forecast about equally")
        if better := [n for n, word in self.forecasts.items() if word == BETTER]:
            notes.append(f"{_numbers(better)} forecast{'s' * (len(better) == 1)} better")
        return notes

    def _edge(self) -> str:
        among = " with its features" if self.elsewhere - self.tried else ""
        if self.tried <= {self.chosen}:
            return f"only {_count(self.chosen)} tried{among}"
        if self.chosen == max(self.tried):
            return f"at most {_count(self.chosen)} tried{among}"
        if 2 < self.chosen == min(self.tried):
            return f"at least {_count(self.chosen)} tried{among}"
        return ""


def verdict_lines(
    client: MlflowClient, winner: Run, cells: Sequence[Run], sweep: Mapping[str, float]
) -> list[str]:
    """Headline and belief, for the terminal and the UI.

    `cells` are those of the winner's sweep, or the run itself; `sweep` are the metrics of a sweep's
    parent run, empty for a single run.
    """
    found_by = "best model" if len(cells) > 1 else "model"
    states = states_tried(client, winner, cells)
    return [
        headline(states, f"{found_by} {called(winner)}"),
        f"believe it? {belief(winner, sweep)}",
    ]


def headline(states: StatesTried, model: str) -> str:
    """Number of regimes, the model, and the limits of this choice."""
    n_states = states.chosen
    regimes = f"{_count(n_states).capitalize()} regime{'s' if n_states > 1 else ''}"
    notes = states.notes if n_states > 1 else []
    return f"{regimes}, {model}" + (f": {'; '.join(notes)}" if notes else "")


def states_tried(client: MlflowClient, winner: Run, cells: Sequence[Run]) -> StatesTried:
    """Compare the numbers of states of the winner's space by their forecasts on validation.

    Of each number the eligible cell with the highest score is compared. Two forecasts are about
    equal if the interval of the difference of their scores covers zero.
    """
    space, chosen = winner.data.tags.get(tags.OBSERVATION_SPACE), _n_states(winner)
    finished = [run for run in cells if run.info.status == "FINISHED" and not lacks(run)]
    alike = [run for run in finished if run.data.tags.get(tags.OBSERVATION_SPACE) == space]
    others = [run for run in finished if run.data.tags.get(tags.OBSERVATION_SPACE) != space]
    found = {n: _against(client, winner, run) for n, run in _rivals(alike, chosen).items()}
    forecasts = {n: word for n, word in found.items() if word}
    return StatesTried(chosen, _numbers_of([winner, *alike]), forecasts, _numbers_of(others))


def _numbers_of(runs: Sequence[Run]) -> frozenset[int]:
    """Numbers of states above one that runs tried."""
    inside = {row["n_states"] for run in runs for row in tried(run)}
    return frozenset(int(n) for n in {*inside, *map(_n_states, runs)} if n > 1)


def belief(run: Run, sweep: Mapping[str, float]) -> str:
    """Whether to believe a model, by its forecasts on test and by how many were tried.

    `sweep` are the metrics of a sweep's parent run, empty for a single run. Gains are in nats per
    bar; see `WordedGain` for the rule.
    """
    if _n_states(run) == 1:
        return "No: a model with one state has no regimes"
    if tags.FAULTS in run.data.tags:
        return "No: the fit has a hard fault"
    gains = gains_on_test(run)
    static, ewma = gains.get("return"), gains.get("ewma")
    if static is None:
        return f"Cannot say: {unmeasured(run, 'return')}"
    p = sweep.get("reality_check_p_white", 0.0)
    if p >= LUCKY:
        return f"No: the best of {sweep['n_cells_tried']:.0f} cells may be luck (p = {p:.3f})"
    story = f"on test it forecasts the next bar {_story([*gains.values()])}; nats per bar"
    if static.word != BETTER:
        return f"No: {story}"
    if ewma is None:
        return f"In part: {story}; {unmeasured(run, 'ewma')}"
    return f"{'Yes' if {gain.word for gain in gains.values()} == {BETTER} else 'In part'}: {story}"


def gains_on_test(run: Run) -> dict[str, WordedGain]:
    """Gains on test over every baseline that was measured, by the name of the metric."""
    found = {
        name: WordedGain.recorded(FORECASTS[baseline], run.data.metrics, f"{name}_gain_test")
        for name, baseline in BASELINES.items()
    }
    return {name: gain for name, gain in found.items() if gain is not None}


def unmeasured(run: Run, name: str) -> str:
    """Why a gain on test, such as `ewma`, is unknown."""
    why = why_no_gain(unscored_of(run), BASELINES[name])
    return why or f"fewer than {MIN_BARS} test bars are scored"


def _story(gains: list[WordedGain]) -> str:
    """Comparisons, the good ones first: `better than a (...), but worse than b (...)`."""
    groups = [[gain for gain in gains if gain.word == word] for word in (BETTER, AS_WELL, WORSE)]
    parts = [
        listed([group[0].text, *(f"{gain.over} ({gain.figure})" for gain in group[1:])])
        for group in groups
        if group
    ]
    return ", but ".join(parts[:2]) + "".join(f", and {part}" for part in parts[2:])


def _rivals(runs: Sequence[Run], chosen: int) -> dict[int, Run]:
    """The eligible run with the highest score on validation for every other number of states."""
    best: dict[int, Run] = {}
    for run in runs:
        n, score = _n_states(run), run.data.metrics.get("return_score_val")
        if n in (1, chosen) or score is None or tags.FAULTS in run.data.tags:
            continue
        if n not in best or score > best[n].data.metrics["return_score_val"]:
            best[n] = run
    return best


def _against(client: MlflowClient, winner: Run, other: Run) -> str | None:
    """Word for the other run's forecast against the winner's; None if they cannot be compared."""
    ours, theirs = (read_validation(client, run) for run in (winner, other))
    if ours is None or theirs is None:
        return None
    gain = theirs["model_score"].reindex(ours.index) - ours["model_score"]
    estimate = estimate_gain(gain.to_numpy())
    return None if estimate is None else WordedGain.of("the winner", estimate).word


def _n_states(run: Run) -> int:
    return int(run.data.metrics["n_states"])


def _count(number: int) -> str:
    return _COUNTS[number] if number < len(_COUNTS) else str(number)


def _numbers(numbers: Sequence[int]) -> str:
    """Numbers in words: `two to five` or `two, three and five`."""
    known = sorted(numbers)
    if len(known) > 2 and known[-1] - known[0] == len(known) - 1:
        return f"{_count(known[0])} to {_count(known[-1])}"
    return listed([_count(n) for n in known])
