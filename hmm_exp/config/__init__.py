"""The settings: their schema, and the checks before any work starts."""

from hmm_exp.config.checks import checked, to_config
from hmm_exp.config.kinds import nearest
from hmm_exp.config.schema import (
    NOT_IN_RESULT,
    RULES,
    ComputeConfig,
    Config,
    CovarianceConfig,
    DataConfig,
    FeaturesConfig,
    GateConfig,
    ModelConfig,
    RegistryConfig,
    SelectionConfig,
    SplitConfig,
    SweepConfig,
    TimeframeConfig,
    TrackingConfig,
    conf_dir,
    flat,
)

__all__ = [
    "NOT_IN_RESULT",
    "RULES",
    "ComputeConfig",
    "Config",
    "CovarianceConfig",
    "DataConfig",
    "FeaturesConfig",
    "GateConfig",
    "ModelConfig",
    "RegistryConfig",
    "SelectionConfig",
    "SplitConfig",
    "SweepConfig",
    "TimeframeConfig",
    "TrackingConfig",
    "checked",
    "conf_dir",
    "flat",
    "nearest",
    "to_config",
]
