"""Decision rules: from filtered probabilities to the regime that a user acts on.

>>> decider = Decision("hysteresis", enter=0.9, leave=0.1).decider(n_states=2)
>>> decider.advance(np.array([[0.6, 0.4], [0.95, 0.05], [0.3, 0.7], [0.05, 0.95]]))
array([-1,  0,  0,  1])

argmax
    The most probable state of the row.
hysteresis
    The regime stays until its probability is below `leave` and that of another is above `enter`.
    The most probable state is then the regime.
min_bars
    The regime stays until another state is the most probable in `min_bars` rows in a row.

The regime before the first row is unknown, so a decider carries the set of all regimes that are
still possible and advances each of them by the rule. The regime is known when one is left, and
`UNDECIDED` until then. A lookback is therefore undecided or agrees with the whole history. The
probabilities of a lookback agree only after the burn-in of the filter, so earlier rows change no
set. The argmax remembers nothing and decides every row.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hmm_exp.compiling import entry, kernel
from hmm_exp.config.schema import RULES
from hmm_exp.hmm.loops import argmax, fill
from hmm_exp.stored.fields import Fields

UNDECIDED = -1
# Places in the memory of a decider, before the K marks of possible regimes.
_N_ROWS, _CANDIDATE, _N_IN_A_ROW, _POSSIBLE = range(4)


@dataclass(frozen=True)
class Decision:
    """A decision rule and its thresholds, as `DecisionConfig`."""

    rule: str = "argmax"
    enter: float = 0.9
    leave: float = 0.1
    min_bars: int = 3

    def decider(self, n_states: int, burn_in: int = 1) -> "Decider":
        """A decider that knows nothing of the past."""
        return Decider(self, n_states, burn_in)

    def __str__(self) -> str:
        values = {"hysteresis": f" (enter {self.enter:g}, leave {self.leave:g})"}
        return self.rule + (values | {"min_bars": f" ({self.min_bars})"}).get(self.rule, "")

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_stored(cls, stored: Fields) -> "Decision":
        """Read what `to_dict` gave. Raises ModelError by field and rule."""
        stored.only(["rule", "enter", "leave", "min_bars"])
        decision = cls(
            stored.text("rule"),
            stored.number("enter"),
            stored.number("leave"),
            stored.whole("min_bars", least=1),
        )
        for name, value in asdict(decision).items():
            if value not in (rule := RULES[f"decision.{name}"]):
                raise stored.fault(name, f"must be {rule}")
        if not decision.leave < decision.enter < 1.0:
            raise stored.fault("leave", "must be below enter, and enter below 1")
        return decision


ARGMAX = Decision()


class Decider:
    """Decide row by row, in one call or in many.

    Parameters
    ----------
    decision, n_states
        The rule, and the number K of states.
    burn_in
        Rows until the filter has forgotten its start; a rule with a memory decides from the last of
        them on.
    """

    def __init__(self, decision: Decision, n_states: int, burn_in: int = 1) -> None:
        has_memory = decision.rule != "argmax"
        self._settings = (
            decision.rule == "hysteresis",
            float(decision.enter),
            float(decision.leave),
            decision.min_bars if has_memory else 1,
            burn_in if has_memory else 1,
        )
        self._memory = np.ones(_POSSIBLE + n_states, np.int64)
        self._memory[:_POSSIBLE] = 0, UNDECIDED, 0

    def advance(self, probs: np.ndarray) -> np.ndarray:
        """Regime of the next rows from their filtered probabilities (T, K), int64, shape (T,)."""
        regimes = np.empty(len(probs), np.int64)
        _advance(*self._settings, self._memory, np.ascontiguousarray(probs), regimes)
        return regimes

    @property
    def regime(self) -> int:
        """Regime as of the last row; `UNDECIDED` while several are possible."""
        possible = self._memory[_POSSIBLE:].nonzero()[0]
        return int(possible[0]) if len(possible) == 1 else UNDECIDED

    def to_dict(self) -> dict[str, Any]:
        """Give the memory as plain values for JSON."""
        n_rows, candidate, in_a_row, *possible = self._memory.tolist()
        return {
            "rows": n_rows,
            "candidate": candidate,
            "in_a_row": in_a_row,
            "possible": [k for k, mark in enumerate(possible) if mark],
        }

    def restore(self, stored: Fields) -> None:
        """Take over the memory that `to_dict` gave. Raises ModelError by field and rule."""
        stored.only(["rows", "candidate", "in_a_row", "possible"])
        K = len(self._memory) - _POSSIBLE
        candidate = stored.whole("candidate", least=UNDECIDED)
        if candidate >= K:
            raise stored.fault("candidate", f"must be below {K}, the number of states")
        possible = stored.wholes("possible", least=0)
        if not possible or max(possible) >= K:
            raise stored.fault("possible", f"must be distinct numbers of states below {K}")
        self._memory[_POSSIBLE:] = np.isin(np.arange(K), possible)
        rows, in_a_row = (stored.whole(name, least=0) for name in ("rows", "in_a_row"))
        for name, value, most in (
            ("rows", rows, self._settings[4]),
            ("in_a_row", in_a_row, self._settings[3]),
        ):
            if value > most:
                raise stored.fault(name, f"must be at most {most}")
        self._memory[:_POSSIBLE] = rows, candidate, in_a_row


@entry
def _advance(hysteresis, enter, leave, min_bars, burn_in, memory, probs, regimes):
    """Write the regime of every row of `probs` (T, K) into `regimes` (T,)."""
    for t in range(len(probs)):
        memory[_N_ROWS] = min(memory[_N_ROWS] + 1, burn_in)
        if memory[_N_ROWS] == burn_in:
            top = argmax(probs[t])
            if hysteresis:
                _leave(memory[_POSSIBLE:], probs[t], top, enter, leave)
            else:
                _count(memory, top, min_bars)
        regimes[t] = _only(memory[_POSSIBLE:])


@kernel
def _leave(possible, probs, top, enter, leave):
    """Move every possible regime that is left to the most probable state."""
    if probs[top] <= enter:
        return
    for k in range(len(possible)):
        if possible[k] == 1 and probs[k] < leave:
            possible[k] = 0
            possible[top] = 1


@kernel
def _count(memory, top, min_bars):
    """Count the rows with this most probable state in a row; enough of them decide.

    A count that began before the first row may be enough earlier, which leaves all possible.
    """
    same = memory[_CANDIDATE] == top
    memory[_N_IN_A_ROW] = min(memory[_N_IN_A_ROW] + 1, min_bars) if same else 1
    memory[_CANDIDATE] = top
    if memory[_N_IN_A_ROW] == min_bars:
        fill(memory[_POSSIBLE:], 0)
        memory[_POSSIBLE + top] = 1


@kernel
def _only(possible):
    """The one possible regime, or `UNDECIDED`."""
    place = argmax(possible)
    for k in range(place + 1, len(possible)):
        if possible[k] == 1:
            return UNDECIDED
    return place
