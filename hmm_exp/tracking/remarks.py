"""What to know about a leaderboard: fits that fell short of fewer states, and missing scores."""

from collections import defaultdict
from itertools import pairwise

from mlflow.entities import Run

from hmm_exp.errors import one_line
from hmm_exp.experiment.unscored import in_words
from hmm_exp.tracking import tags
from hmm_exp.tracking.complete import called
from hmm_exp.tracking.stored import unscored_of

_STATES = {"model.n_states", "model.state_grid"}
_LOG_LIK = {"log_lik_train", "n_states"}
_CLOSE = 0.1  # nats; as near as restarts are said to agree


def shortfalls(cells: list[Run]) -> list[str]:
    """Name finished cells whose train log-likelihood is below that of the same with fewer states.

    More states can never fit worse, so EM stopped at a poor optimum.
    """
    alike: dict[tuple, list[Run]] = defaultdict(list)
    for run in cells:
        if run.info.status == "FINISHED" and set(run.data.metrics) >= _LOG_LIK:
            rest = {name: v for name, v in run.data.params.items() if name not in _STATES}
            space = run.data.tags.get(tags.OBSERVATION_SPACE)
            alike[(space, *sorted(rest.items()))].append(run)
    lines = []
    for runs in alike.values():
        runs.sort(key=lambda run: run.data.metrics["n_states"])
        lines += [_line(*pair) for pair in pairwise(runs) if _short(*pair) > _CLOSE]
    return lines


def missing_scores(cells: list[Run]) -> list[str]:
    """Give every reason why finished cells lack scores, with the cells."""
    finished = [run for run in cells if run.info.status == "FINISHED"]
    by_reason: dict[str, list[str]] = defaultdict(list)
    for run in finished:
        for reason in in_words(unscored_of(run)):
            by_reason[reason].append(run.data.tags[tags.CELL])
    return [
        one_line(f"{_which(names, len(finished))}: {reason}") for reason, names in by_reason.items()
    ]


def _which(names: list[str], n_finished: int) -> str:
    if len(names) == 1:
        return names[0]
    return f"{len(names)} of {n_finished} cells, such as {names[0]}"


def _short(fewer: Run, more: Run) -> float:
    return fewer.data.metrics["log_lik_train"] - more.data.metrics["log_lik_train"]


def _line(fewer: Run, more: Run) -> str:
    names = [called(run) for run in (more, fewer)]
    return (
        f"{names[0]} fits {_short(fewer, more):.1f} nats worse than {names[1]}: EM stopped short, "
        "more starts may help (model.n_init)"
    )
