"""Optuna as a sweeper of Hydra 1.3: `hydra/sweeper=optuna`.

hydra-optuna-sweeper for Hydra 1.3 needs Optuna 2; the one for Optuna 4 and later needs Hydra 1.4.
This plugin stands in until then. It has the names and options of the other, and steps aside where
the other is installed.
"""
