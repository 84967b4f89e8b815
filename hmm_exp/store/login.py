"""Keep the login of a tracking address in the environment of a sweep, out of all files.

Hydra writes the command and the config into a folder of every run, and the store records them as
params and artifacts.
"""

import os

from omegaconf import DictConfig, OmegaConf

from hmm_exp.config.overrides import hydra_text
from hmm_exp.config.unlocked import unlocked
from hmm_exp.errors import redacted
from hmm_exp.store.address import VARIABLE


def hide_login(config: DictConfig) -> None:
    """Move the login of the tracking address from a config to MLFLOW_TRACKING_URI.

    The config keeps the address without login; `resolve_uri` restores it. Workers inherit the
    variable; those on other machines need it in their own environment.
    """
    uri = OmegaConf.select(config, "tracking.uri")
    if not isinstance(uri, str) or redacted(uri) == uri:
        return
    os.environ[VARIABLE] = uri
    with unlocked(config):
        config.tracking.uri = redacted(uri)
        words = config.hydra.overrides.task
        config.hydra.overrides.task = [
            f"tracking.uri={hydra_text(redacted(uri))}"
            if word.lstrip("+").startswith("tracking.uri=")
            else word
            for word in words
        ]
        config.hydra.job.override_dirname = redacted(str(config.hydra.job.override_dirname))
