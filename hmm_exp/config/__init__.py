"""The settings: their schema, and the checks before any work starts."""

from hmm_exp.config.checks import checked, composition_error, nearest, to_config
from hmm_exp.config.schema import (
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
    "composition_error",
    "conf_dir",
    "flat",
    "nearest",
    "to_config",
]
