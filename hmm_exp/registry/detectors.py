"""Load the detectors of many registered models at once, one for each symbol.

detectors = hmm_exp.load_detectors("hmm_regime.*")
regimes = detectors["BTC"].filter(bars)

The store is asked a few times for all models, not a few times for each.
"""

import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from hmm_exp.config.checks import nearest
from hmm_exp.detector.detector import Detector
from hmm_exp.errors import ModelError, few, one_line
from hmm_exp.parallel import run_all
from hmm_exp.registry.versions import ALIAS, STAGE
from hmm_exp.serving.load import detector_in, store_for
from hmm_exp.tracking import tags

_PATTERN = re.compile(rf"(?:models:/+)?(?P<name>[^/:]+?)(?P<place>/{STAGE}|@{ALIAS})?", re.I)
_MAGIC = re.compile(r"[*?\[%'\\]")  # begins the part of a pattern that the store does not search
_LOGGED = re.compile(r"models:/(m-\w+)")  # source of a version that is a logged model
_PAGE, _IDS = 1000, 100  # most models of an answer, most ids of a question
_AT_ONCE = 8  # models read at a time; of a remote store most of it is waiting


@dataclass(frozen=True)
class Found:
    """What a pattern of registered models gives.

    Attributes
    ----------
    detectors
        The detector in Production by symbol, in alphabetical order.
    failed
        Why a model cannot be loaded, by its symbol.
    others
        Names of the models that are not of one symbol.
    """

    detectors: dict[str, Detector] = field(default_factory=dict)
    failed: dict[str, ModelError] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def load_detectors(pattern: str) -> dict[str, Detector]:
    """Load the detector of each symbol that has a registered model in Production.

    Parameters
    ----------
    pattern
        Names of registered models as a glob that respects case, `hmm_regime.*`; or with the place,
        `models:/hmm_regime.*/Production` or `models:/hmm_regime.*@production`. Names are resolved
        in MLflow's current store, as by `load_detector`.

    Returns
    -------
    dict
        Detectors by symbol, in alphabetical order. The symbol is the tag `instrument` of the
        version. A model that is not of one symbol is left out: `load_detector` loads it.

    Raises
    ------
    ModelError
        No model matches, none is in Production, two are of one symbol, or one cannot be loaded.
    """
    found = find_detectors(pattern)
    for error in found.failed.values():
        raise error
    return found.detectors


def find_detectors(pattern: str, symbols: Collection[str] | None = None) -> Found:
    """Load as `load_detectors` what can be loaded, of all symbols or of some."""
    known = _PATTERN.fullmatch(pattern)
    if known is None or "@" in known["name"]:
        raise ModelError(
            f"{pattern} names no models in Production: give a pattern of their names such as "
            f"models:/hmm_regime.*/{STAGE}"
        )
    with store_for(f"models:/{known['name']}"):
        client = MlflowClient()
        is_alias = str(known["place"]).startswith("@")
        versions = [
            version
            for version in in_production(client, known["name"], is_alias)
            if symbols is None or version.tags.get(tags.INSTRUMENT, "") in {"", *symbols}
        ]
        places = _places(client, versions)
        loaded = run_all(_load, list(zip(versions, places, strict=True)), _AT_ONCE)
    found = _by_symbol(pattern, versions, loaded)
    if symbols is None and not found.detectors and not found.failed:
        raise ModelError(f"{pattern} matches no model of one symbol, only {few(found.others)}")
    return found


def in_production(client: MlflowClient, pattern: str, is_alias: bool = False) -> list[ModelVersion]:
    """The version in Production of each model whose name matches, in the order of the names.

    Raises ModelError if none matches, or none is in Production.
    """
    beginning = _MAGIC.split(pattern)[0]
    models = [model for model in _models(client, beginning) if fnmatchcase(model.name, pattern)]
    if not models:
        names = [model.name for model in _models(client, "")]
        others = f"; there are {few(names)}" if names else ": promote one"
        hint = nearest(pattern, names) or others
        raise ModelError(f"no registered model matches {pattern}{hint}")
    find = _under_alias if is_alias else _in_stage
    versions = [version for model in models if (version := find(client, model))]
    if not versions:
        names = [model.name for model in models]
        raise ModelError(f"{pattern} has no version in {STAGE}: promote one of {few(names)}")
    return versions


def _models(client: MlflowClient, beginning: str) -> Iterable[RegisteredModel]:
    """Registered models whose names begin so, with their newest version in each stage."""
    words = f"name LIKE '{beginning}%'"
    return _pages(lambda token: client.search_registered_models(words, _PAGE, page_token=token))


def _in_stage(client: MlflowClient, model: RegisteredModel) -> ModelVersion | None:
    return next((v for v in model.latest_versions if v.current_stage == STAGE), None)


def _under_alias(client: MlflowClient, model: RegisteredModel) -> ModelVersion | None:
    number = model.aliases.get(ALIAS)
    newest = {str(version.version): version for version in model.latest_versions}
    if number is None or str(number) in newest:
        return newest.get(str(number))
    return client.get_model_version(model.name, number)


def _places(client: MlflowClient, versions: Sequence[ModelVersion]) -> list[str]:
    """URI of the files of each version."""
    sources = [_LOGGED.fullmatch(str(version.source)) for version in versions]
    known = _logged_places(client, [source[1] for source in sources if source])
    return [
        (source and known.get(source[1]))
        or client.get_model_version_download_uri(version.name, version.version)
        for source, version in zip(sources, versions, strict=True)
    ]


def _logged_places(client: MlflowClient, ids: list[str]) -> dict[str, str]:
    """URIs of the files of logged models by id; a search for many is one question to the store."""
    pages = _pages(lambda token: client.search_experiments(page_token=token))
    experiments = [experiment.experiment_id for experiment in pages]
    found: dict[str, str] = {}
    for first in range(0, len(ids), _IDS):
        words = ", ".join(f"'{one}'" for one in ids[first : first + _IDS])
        page = client.search_logged_models(experiments, f"model_id IN ({words},)", max_results=_IDS)
        found |= {model.model_id: model.artifact_location for model in page}
    return found


def _pages(search: Callable[[str | None], PagedList]) -> Iterator[Any]:
    """All results of a search that gives them page by page."""
    token = None
    while True:
        page = search(token)
        yield from page
        if not (token := page.token):
            return


def _load(found: tuple[ModelVersion, str]) -> Any:
    """The detector of a version, or the error that it cannot be loaded."""
    version, place = found
    uri = f"models:/{version.name}/{version.version}"
    try:
        if is_local_uri(place):
            return detector_in(Path(local_file_uri_to_path(place)), uri)
        with tempfile.TemporaryDirectory() as folder:
            data = mlflow.artifacts.download_artifacts(f"{place}/data", dst_path=folder)
            return detector_in(Path(data), uri)
    except ModelError as error:
        return error
    except (MlflowException, OSError) as error:
        return ModelError(f"no model at {uri}: {one_line(error)}")


def _by_symbol(pattern: str, versions: Sequence[ModelVersion], loaded: list[Any]) -> Found:
    """Sort what was loaded. Raises ModelError where two models are of one symbol."""
    found, names = Found(), dict[str, str]()
    for version, model in zip(versions, loaded, strict=True):
        is_error = isinstance(model, ModelError)
        symbol = str(version.tags.get(tags.INSTRUMENT) or getattr(model, "name", version.name))
        if not is_error and not isinstance(model, Detector):
            found.others.append(version.name)
            continue
        if symbol in names:
            raise ModelError(
                f"2 models of symbol {symbol} in {STAGE}: {names[symbol]} and {version.name}; "
                f"narrow the pattern {pattern}"
            )
        names[symbol] = version.name
        (found.failed if is_error else found.detectors)[symbol] = model
    detectors = {symbol: found.detectors[symbol] for symbol in sorted(found.detectors)}
    return replace(found, detectors=detectors)
