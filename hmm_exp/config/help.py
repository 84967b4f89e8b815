"""Text of `--help`; Hydra's own takes more than a second to collect the choices."""

from hmm_exp.config import conf_dir
from hmm_exp.config.checks import choices

EXAMPLES = """\
Sweep hidden Markov models over OHLCV features and track every run in MLflow.

One run, the synthetic market, three states:
  python -m hmm_exp.train
A sweep of eight cells (-m makes lists into a grid), tracked, judged, its winner promoted:
  python -m hmm_exp.train -m model.n_states=2,3,4,5 features=v1,v2
Your own bars; bar_stamp says whether a time marks a bar's open or its close:
  python -m hmm_exp.train -m data=bars data.path=bars.csv data.bar_stamp=open \\
      model.n_states=2,3,4,5 features=v1,v2
Many markets, one file each; winners are promoted at a limited false discovery rate:
  python -m hmm_exp.train -m data=panel data.path='lake/*.parquet' data.bar_stamp=open \\
      model.n_states=2,3 features=v1,range timeframe=base
Other dimensions, and the number of states searched inside each run:
  python -m hmm_exp.train -m covariance=diag,full timeframe=1H,4H model.state_grid=[2,3,4]
A search, in which Optuna proposes the cells (pip install 'hmm_exp[optuna]'):
  python -m hmm_exp.train -m hydra/sweeper=optuna 'model.n_states=range(2,7)' features=v1,range
A named experiment:
  python -m hmm_exp.train experiment=btc_1h_v1 data.path=bars.csv
Go on with a sweep that was stopped:
  python -m hmm_exp.train -m sweep_id=<id> <the same words as before>
Results and errors only, no progress:
  python -m hmm_exp.train --quiet

Choices of each group (group=choice):"""
CLOSING = """
Every setting and its default: --cfg job. The version: --version. Hydra's own options: --hydra-help.
Completion by the Tab key (bash, zsh or fish): eval "$(hmm-train -sc install=bash)"."""


def help_text() -> str:
    """Give examples and every group of `conf/` with its choices."""
    groups = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    lines = [f"  {group.name}: {choices(group.name)}" for group in groups if group.name != "hydra"]
    return "\n".join([EXAMPLES, *lines, CLOSING])
