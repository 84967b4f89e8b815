"""The data of a run as MLflow's own input, which the UI shows in its column Dataset."""

import json
from collections.abc import Mapping

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from hmm_exp.config import Config
from hmm_exp.tracking import tags

_GENERATOR = "hmm_exp.market.synthetic.make_market"
_CONTEXT = "train, validation, test"


def log_dataset(
    client: MlflowClient, run_id: str, settings: Config, about: Mapping[str, str]
) -> None:
    """Log name, digest and source of the data; nothing where it was not read.

    `about` are the tags of the run. The rows are not read again.
    """
    if tags.DATA_DIGEST not in about:
        return
    found = DatasetInput(_dataset(settings, about), [InputTag(MLFLOW_DATASET_CONTEXT, _CONTEXT)])
    try:
        client.log_inputs(run_id, [found])
    except MlflowException:  # another cell made the same dataset at the same time: now it exists
        client.log_inputs(run_id, [found])


def _dataset(settings: Config, about: Mapping[str, str]) -> Dataset:
    data = settings.data
    kind, source = "local", json.dumps({"uri": data.path})
    if data.kind == "synthetic":
        made = {name: getattr(data, name) for name in ("n_bars", "n_regimes", "seed")}
        kind, source = "code", json.dumps({"tags": {"generator": _GENERATOR, **made}})
    return Dataset(about[tags.INSTRUMENT], about[tags.DATA_DIGEST], kind, source)
