"""Optuna as a sweeper of Hydra 1.3: `hydra/sweeper=optuna`.

hydra-optuna-sweeper for Hydra 1.3 needs Optuna 2; the one for Optuna 4 and later needs Hydra 1.4.
This plugin serves until then. It has the names and options of hydra-optuna-sweeper, and registers
nothing where that one is installed.
"""
