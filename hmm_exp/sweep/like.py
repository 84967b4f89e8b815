"""The split of a recorded run for a new command: `split.like=<run>` becomes dates.

It is resolved once, before any check, so that cells and their processes need no store for it.
"""

import json

from omegaconf import DictConfig, OmegaConf

from hmm_exp.config.overrides import hydra_text
from hmm_exp.config.unlocked import unlocked
from hmm_exp.errors import ConfigError, TrackingError

_DATES = ("train_start", "train_end", "val_end")


def resolve_like(config: DictConfig) -> None:
    """Set the split instants of the run that `split.like` names, in a config and in its words.

    A walk forward stays one, from these instants on; else the split is `dates`. Without
    `split.like` nothing changes.

    Raises
    ------
    ConfigError
        Dates are set, too, or the kind of split is swept.
    TrackingError
        There is no such run, several ids begin so, or the run has no recorded split.
    """
    like = OmegaConf.select(config, "split.like")
    if like is None:
        return
    _check_alone(config, like)
    run_id, instants = _recorded(config.tracking.uri, str(like))
    values = {"split.like": run_id} | {f"split.{name}": instants[name] for name in _DATES}
    if config.split.kind != "walk_forward":
        values["split.kind"] = "dates"
    with unlocked(config):
        for name, value in values.items():
            OmegaConf.update(config, name, value)
        words = [f"{name}={hydra_text(value)}" for name, value in values.items()]
        config.hydra.overrides.task += words  # Hydra composes the cells from these


def _check_alone(config: DictConfig, like: object) -> None:
    """Refuse other settings that decide the same."""
    for name in _DATES:
        if config.split[name] is not None:
            raise ConfigError(
                f"split.like={like} and split.{name}={config.split[name]} are both set: leave one "
                "out"
            )
    for word in config.hydra.overrides.task:
        name, _, value = word.lstrip("+").partition("=")
        if name in ("split", "split.kind") and "," in value:
            raise ConfigError(f"{word} with split.like={like}: choose one kind of split")


def _recorded(uri: str | None, like: str) -> tuple[str, dict[str, str]]:
    """Full id of a run, and its split instants as ISO texts."""
    from hmm_exp.store.run_ids import full_run_id
    from hmm_exp.store.store import connect
    from hmm_exp.tracking.read import REPORT_FILE, read_text

    client = connect(uri, "tracking.uri")
    try:
        run_id = full_run_id(client, like)
    except TrackingError as error:
        raise TrackingError(f"split.like={like}: {error}") from None
    split = json.loads(read_text(client, run_id, REPORT_FILE) or "{}").get("split", {})
    if not set(_DATES) <= set(split):
        raise TrackingError(
            f"split.like={like}: no run of this id with a split is in this store; name a finished "
            "run or cell"
        )
    return run_id, split
