"""The command line: one run, or with `-m` a sweep, composed by Hydra and tracked in MLflow.

    python -m hmm_exp.train -m model.n_states=2,3,4,5 features=v1,v2

Exit status: 0 done, 1 a cell failed or nothing could be promoted, 2 bad input.
"""

import os
import re
import sys
from dataclasses import fields

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hmm_exp.config import Config, conf_dir, flat, nearest
from hmm_exp.errors import HmmExpError

ConfigStore.instance().store(name="schema", node=Config)

SETTINGS = (*flat(Config()), *(group.name for group in fields(Config)))


@hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")
def cell(config: DictConfig) -> None:
    """Run what one composed config describes; in a sweep a failure is recorded, not raised."""
    from hmm_exp.tracking.cell import run_cell  # MLflow and numba only when there is work

    run_cell(config)


def main() -> None:
    """Run the command line; bad input is one line on standard error and exit status 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra raise, so that the line below is all
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        cell()
    except HmmExpError as error:
        _refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _refuse(_one_line(error))


def _refuse(line: str) -> None:
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)


def _one_line(error: Exception) -> str:
    """Hydra's and OmegaConf's words on one line, with the nearest setting for an unknown one."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if choice := re.search(
        r"Could not find '(\S+)/(\S+)' Available options in '\S+': (.*?) Conf", text
    ):
        group, word, options = choice.groups()
        return f"unknown {group} {word!r}: one of {', '.join(options.split())}"
    if unknown := re.search(
        r"Could not override '\+*([\w.]+)'|Key '\w+' not in.*?full_key: ([\w.]+)", text
    ):
        name = unknown[1] or unknown[2]
        return f"unknown setting {name}{nearest(name, SETTINGS)}: --cfg job shows them all"
    if "add --multirun" in text:
        return f"{text.split(' 1. ')[0]}: add -m to sweep over a list"
    return text.split(" full_key:")[0].split(" See https:")[0]


if __name__ == "__main__":
    main()
