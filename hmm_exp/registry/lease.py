"""A lease, stored as a tag on the registered model: one promotion at a time across machines.

    with lease(client, "hmm_regime"):
        ...                                          # no other process holds the lease here

MLflow has no compare-and-set. Each contender therefore first sets a flag of its own, the tag
`hmm_exp.lease.<token>`, and then reads all flags. If there is another one, it removes its own and
retries later. Of two contenders, the later reader sees both flags, so both never hold the lease
(Dekker's algorithm; a server acknowledges a write after its database has stored it).

A dead holder blocks only briefly. On the same machine, its process is known to be gone. On others,
its flag expires at the time it names, if clocks agree within a minute; a flag that names an
impossibly late time comes from a wrong clock and is void. A holder stops before its own flag
expires; it measures that with the monotonic clock.
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
LASTS = 600.0  # seconds, far more than a promotion takes
_PAUSES = (0.05, 0.5)  # range of the random pause between tries, seconds


class Lease:
    """A held lease; see `lease`."""

    def __init__(self, client: MlflowClient, name: str, lasts: float = LASTS) -> None:
        self.client, self.name, self.lasts = client, name, lasts
        self.tag = f"{PREFIX}{uuid.uuid4().hex}"
        self._ends = 0.0  # on the monotonic clock

    def check(self) -> None:
        """Raise TrackingError if the lease is about to expire or its flag was removed."""
        is_late = time.monotonic() > self._ends - min(MARGIN, 0.5 * self.lasts)
        if is_late or self.tag not in self.client.get_registered_model(self.name).tags:
            raise TrackingError(
                f"the lease on {self.name} ran out after {self.lasts:g} seconds: stopped; the next "
                "promotion or rollback completes or undoes this one"
            )

    def raise_flag(self) -> list[str]:
        """Set the flag and return the holders of other flags, in words."""
        self._ends = time.monotonic() + self.lasts
        text = f"{time.time() + self.lasts:.0f} {this_process()}"
        self.client.set_registered_model_tag(self.name, self.tag, text)
        return self._others()

    def take_down(self, tag: str | None = None) -> None:
        """Remove a flag, by default this one, if it exists."""
        with suppress(MlflowException):
            self.client.delete_registered_model_tag(self.name, tag or self.tag)

    def _others(self) -> list[str]:
        """Holders of other valid flags; flags of dead or expired holders are removed."""
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
    """Whether a flag blocks nobody: it has expired, or its time is impossibly late.

    `void_at` is the time in the flag, `lasts` the longest validity of a flag; Unix seconds and
    seconds.
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
    """Hold the lease on a registered model, which is created if it does not exist.

    A model created for the lease is removed again if it gets no version. Raises TrackingError if
    others hold the lease for `patience` seconds; the message names the holder. The lease lasts
    `lasts` seconds.
    """
    mine = Lease(client, name, lasts)
    made = _acquire(mine, time.monotonic() + patience)
    try:
        yield mine
    finally:
        with suppress(MlflowException):  # do not hide an error of the block
            if made and not client.search_model_versions(f"name = '{name}'"):
                client.delete_registered_model(name)
        mine.take_down()


def _acquire(mine: Lease, until: float) -> bool:
    """Try until no other flag is set; return whether the registered model was created."""
    made = False
    while True:
        try:
            others = mine.raise_flag()
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            with suppress(MlflowException):  # another process has just created it
                mine.client.create_registered_model(mine.name)
                made = True
            continue
        if not others:
            return made
        mine.take_down()
        if time.monotonic() > until:
            raise TrackingError(f"another promotion of {mine.name} is running: {others[0]}")
        time.sleep(random.uniform(*_PAUSES))
