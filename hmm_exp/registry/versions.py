"""The versions of a registered model, and which of them is in Production.

Users load `models:/<name>/Production`. A stage URI serves the highest version in the stage, so the
stage holds exactly one; the alias `production` names the same version.
"""

import warnings
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hmm_exp.errors import TrackingError
from hmm_exp.store.run_ids import is_short, the_one
from hmm_exp.tracking import tags

STAGE = "Production"
ALIAS = "production"


@dataclass(frozen=True)
class Champion:
    """The version in Production."""

    name: str  # of the registered model
    version: str
    run_id: str | None  # the run that logged the model
    # Tags of the version: fingerprint, instrument, data kind, sweep, metrics, and the version it
    # replaced (`replaces`).
    tags: dict[str, str]

    @property
    def uri(self) -> str:
        """Address of this version, independent of what is in Production."""
        return f"models:/{self.name}/{self.version}"

    @property
    def replaces(self) -> str | None:
        """The version that it replaced in Production."""
        return self.tags.get(tags.REPLACES)


class Versions:
    """The versions of one registered model, which need not exist yet."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.client = client
        self.name = name

    @property
    def uri(self) -> str:
        """Address of the version in Production."""
        return f"models:/{self.name}/{STAGE}"

    def all(self) -> list[ModelVersion]:
        """All versions, oldest first."""
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(found, key=lambda version: int(version.version))

    def get(self, number: str) -> ModelVersion:
        """A version by number, by the beginning of its run's id, or `production`.

        Raises TrackingError if there is none, or several versions are of that run.
        """
        champion = self.champion() if number.lower() == ALIAS else None
        wanted = champion.version if champion else number
        found = next((v for v in self.all() if str(v.version) == wanted), None)
        if found is None and is_short(number.lower()[:31]):
            of_run = {
                str(v.version): v for v in self.all() if (v.run_id or "").startswith(number.lower())
            }
            if of_run:
                named = {name: f"version {name}" for name in of_run}
                found = of_run[the_one("version", f"run {number}", named)]
        if found is None:
            known = ", ".join(str(version.version) for version in self.all())
            raise TrackingError(
                f"no version {number} of {self.name}" + (f": there are {known}" if known else "")
            )
        return found

    def champion(self) -> Champion | None:
        """The version that the stage URI serves, None without one."""
        staged = self.staged()
        return champion_of(staged[-1]) if staged else None

    def staged(self) -> list[ModelVersion]:
        """Versions in the stage: one or none."""
        return [version for version in self.all() if version.current_stage == STAGE]

    def alias(self) -> str | None:
        """Version under the alias, None without one."""
        try:
            aliases = self.client.get_registered_model(self.name).aliases
        except MlflowException:  # no such registered model
            return None
        return str(aliases[ALIAS]) if ALIAS in aliases else None

    def create(
        self, model_id: str, run_id: str, about: dict[str, str], description: str
    ) -> ModelVersion:
        """Register a logged model as a new version, with its tags in the same transaction."""
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            what = f"Market regimes. `{self.uri}` is served; each version records why."
            self.client.create_registered_model(self.name, description=what)
        return self.client.create_model_version(
            self.name,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags={name: text[: tags.LONGEST] for name, text in about.items()},
            description=description,
            model_id=model_id,
        )

    def settle(self, number: str) -> None:
        """Put a version into Production and under the alias, if it is not there yet."""
        if [str(version.version) for version in self.staged()] != [number]:
            with warnings.catch_warnings():  # MLflow deprecates stages but still serves them
                warnings.simplefilter("ignore", FutureWarning)
                self.client.transition_model_version_stage(
                    self.name, number, STAGE, archive_existing_versions=True
                )
        if self.alias() != number:
            self.client.set_registered_model_alias(self.name, ALIAS, number)

    def tag(self, number: str, name: str, text: str) -> None:
        """Write a tag on a version."""
        self.client.set_model_version_tag(self.name, number, name, text[: tags.LONGEST])

    def remove(self, number: str) -> None:
        """Delete a version that never served; the model stays with its run."""
        if self.alias() == number:
            self.client.delete_registered_model_alias(self.name, ALIAS)
        self.client.delete_model_version(self.name, number)


def champion_of(version: ModelVersion) -> Champion:
    """A present or former champion."""
    return Champion(version.name, str(version.version), version.run_id, dict(version.tags))
