"""What each way of launching cells needs of a sweep before it starts.

Cells in processes of one machine, jobs of a cluster, tasks of Ray: Hydra's launchers differ in how
they count cores and in what reaches their workers. What they need is set, or refused, here.
"""

import os
import shutil

from omegaconf import DictConfig, open_dict, read_write

from hmm_exp.config import Config
from hmm_exp.errors import ConfigError
from hmm_exp.hmm.threads import cores
from hmm_exp.tracking.address import resolve_uri, sqlite_path

_IN_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def in_this_process(config: DictConfig) -> bool:
    """Whether cells run in the main process, one after the other."""
    return config.hydra.launcher._target_ == _IN_PROCESS


def check_launcher(config: DictConfig, settings: Config) -> None:
    """Refuse what the chosen launcher cannot do here. Raises ConfigError."""
    if not _is(config, "SlurmLauncher"):
        return
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "compute=slurm: there is no sbatch here; start the sweep on a login node of the "
            "cluster, or try it on one machine with compute=submitit_local"
        )
    if sqlite_path(resolve_uri(settings.tracking.uri)) is not None:
        raise ConfigError(
            "compute=slurm: jobs on other machines cannot write to a SQLite file here; set "
            "tracking.uri or MLFLOW_TRACKING_URI to the address of a tracking server"
        )


def set_up_launcher(config: DictConfig, settings: Config, n_cells: int) -> None:
    """Tell the chosen launcher how many cells may run at a time, and where Ray may be heard."""
    if _is(config, "JoblibLauncher"):
        with read_write(config), open_dict(config):
            config.hydra.launcher.n_jobs = min(settings.compute.workers or cores(), n_cells)
    if _is(config, "RayLauncher"):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if config.hydra.launcher.ray.init.get("address") in (None, "local"):
            _keep_ray_here(config)


def _keep_ray_here(config: DictConfig) -> None:
    """Have Ray started on this machine, to be heard on loopback alone.

    Without an address Ray would join what RAY_ADDRESS or /tmp/ray/ray_current_cluster name.
    """
    with read_write(config), open_dict(config):
        config.hydra.launcher.ray.init.address = "local"
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # its switch for one machine


def _is(config: DictConfig, launcher: str) -> bool:
    return str(config.hydra.launcher._target_).endswith(f".{launcher}")
