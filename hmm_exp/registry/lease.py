"""One promotion at a time among machines: a lease that lies as a tag on the registered model.

    with lease(client, "hmm_regime"):
        ...                                          # no other holder of a lease is in here

MLflow has no compare-and-set, so each contender first raises a flag of its own, the tag
`hmm_exp.lease.<token>`, and then looks: with another's flag beside it, it takes its own down and
tries again later. Of two, the one who looks last sees both, so never do two go in (Dekker's rule; a
server answers a write when its database holds it). A holder that died bars nobody for long: on its
own machine its process is seen to be gone, on others its flag is void at the time it bears, for
which the clocks have to agree within a minute; a flag that bears a time later than any flag can is
from hmm_exp.tracking.runs import MARGIN
from a clock that was wrong, and void too. A holder for whom that time comes near gives up before it
changes anything more; it counts its seconds itself, whatever becomes of its clock.
"""

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient

from hmm_exp.errors import TrackingError
from hmm_exp.owner import in_words, is_dead, this_process
from hmm_exp.tracking.runs import MARGIN

PREFIX = "hmm_exp.lease."
LASTS = 600.0  # seconds, many times what a promotion takes
_PAUSES = (0.05, 0.5)  # seconds between two tries, drawn anew each time


class Lease:
    """A lease that is held; see `lease`."""

    def __init__(self, client: MlflowClient, name: str, lasts: float = LASTS) -> None:
        self.client, self.name, self.lasts = client, name, lasts
        self.tag = f"{PREFIX}{uuid.uuid4().hex}"
        self._ends = 0.0  # on the monotonic clock

    def check(self) -> None:
        """Raise TrackingError when the lease is nearly void, or another has taken it down."""
        if time.monotonic() > self._ends - min(MARGIN, 0.5 * self.lasts) or not self._up():
            raise TrackingError(
                f"the lease on {self.name} ran out after {self.lasts:g} seconds: nothing more was "
                "changed, the next promotion or rollback puts right what is half done"
            )

    def raise_flag(self) -> list[str]:
        """Put the flag up and give the holders of other flags, in words."""
        self._ends = time.monotonic() + self.lasts
        text = f"{time.time() + self.lasts:.0f} {this_process()}"
        self.client.set_registered_model_tag(self.name, self.tag, text)
        return self._others()

    def take_down(self, tag: str | None = None) -> None:
        """Remove a flag, by default this one; nothing when it is gone."""
        with suppress(MlflowException):
            self.client.delete_registered_model_tag(self.name, tag or self.tag)

    def _up(self) -> bool:
        return self.tag in self.client.get_registered_model(self.name).tags

    def _others(self) -> list[str]:
        """Holders of other flags; the flags of the dead are taken down on the way."""
        standing = []
        for tag, text in self.client.get_registered_model(self.name).tags.items():
            if not tag.startswith(PREFIX) or tag == self.tag:
                continue
            void_at, _, owner = text.partition(" ")
            if is_dead(owner) or is_void(void_at, time.time(), max(LASTS, self.lasts)):
                self.take_down(tag)
            else:
                standing.append(in_words(owner))
        return standing


def is_void(void_at: str, now: float, lasts: float = LASTS) -> bool:
    """Whether a flag bars nobody: its time is over, or so far ahead that no holder can have set it.

    Parameters
    ----------
    void_at
        As the flag bears it, Unix seconds.
    now
        Unix seconds.
    lasts
        Seconds for which a flag may be valid.
    """
    try:
        left = float(void_at) - now
    except ValueError:
        return True
    return not -MARGIN <= left <= lasts + MARGIN


@contextmanager
def lease(
    client: MlflowClient, name: str, *, patience: float = 120.0, lasts: float = LASTS
) -> Iterator[Lease]:
    """Hold the lease on a registered model, made for it where there is none yet.

    A model that was made for the lease and has got no version is removed again.

    Parameters
    ----------
    patience
        Seconds to wait for others.
    lasts
        Seconds after which the lease is void.

    Raises
    ------
    TrackingError
        When others hold it for that long; says who.
    """
    mine = Lease(client, name, lasts)
    made = _acquire(mine, time.monotonic() + patience)
    try:
        yield mine
    finally:
        with suppress(MlflowException):  # what went wrong inside is what is told
            if made and not client.search_model_versions(f"name = '{name}'"):
                client.delete_registered_model(name)
        mine.take_down()


def _acquire(mine: Lease, until: float) -> bool:
    """Try until the flag stands alone; gives whether the registered model was made for it."""
    made = False
    while True:
        try:
            others = mine.raise_flag()
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            with suppress(MlflowException):  # another has just made it
                mine.client.create_registered_model(mine.name)
                made = True
            continue
        if not others:
            return made
        mine.take_down()
        if time.monotonic() > until:
            raise TrackingError(f"another promotion of {mine.name} is under way: {others[0]}")
        time.sleep(random.uniform(*_PAUSES))
