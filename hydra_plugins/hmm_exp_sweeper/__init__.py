"""The grid of a sweep, as Hydra's basic sweeper runs it, with its cells composed once."""
