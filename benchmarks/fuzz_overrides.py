"""Sets of overrides for `fuzz.py`: valid words of a command line, and ways to break them.

A set goes through the parsing of its words, Hydra's composition, the checks of every cell, the
store's address and `experiment.prepare` (reading, features, split, scaler) on at most 3,000 bars
and three cells. Nothing is fitted, recorded or promoted.
"""

import random
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

from forks import ACCEPTED, Case


def listed(text: str) -> list[str]:
    """Words, two blanks or a line apart."""
    return [word for line in text.splitlines() for word in line.split("  ") if word]


VALID = listed("""
model.n_states=3  model.n_states=2,3  model.n_states=range(2,5)  model.n_init=2  model.n_iter=9
model.state_grid=[2,3]  model.tol=1e-3  model.min_covar=0.001  model.random_state=7  model=default
model.refit=train_val  model.engine=hmmlearn  features=v1  features=v1,v2  features=glob(v*)
features.window=20  features.vwap_hours=24  features.exclude=[log_volume*]
features.include=['*_1H']  features.columns=[close_logret_current_1H]  timeframe=4H  timeframe=1H,4H
timeframe.timeframes=[1H,12H]  covariance=full  covariance=diag,tied  split=dates
split.train_end=2018-10-01  split.val_end='2018-11-01 12:00'  split=walk_forward  split.train=0.6
split.val=0.25  split.refit_every=100  selection=cv  selection.cv_blocks=3  selection.within=aic
gate=strict  gate.level=0.05  compute=joblib  compute.workers=2  compute.threads=1  cache=false
tracking.uri=sqlite:///x/mlflow.db  tracking.experiment=one two  tracking.patience=1  promote=true
registry.name=hmm_regime  sweep_id=20240101-000000-abcd  start.cell_timeout=60  quiet=true
experiment=synthetic_grid  data.n_bars=2500  data.seed=1  data.name=BTC/USDT  data.gaps=bridge
data.timezone=US/Eastern  data.bad_rows=drop  hydra.run.dir=runs/${now:%H}  hydra.sweep.dir=sweeps
hydra.verbose=false  hydra/launcher=joblib  hydra.job.chdir=false  hydra.output_subdir=null
+hydra.job.env_set.X=1  ~experiment  start.require_all=true  hydra.mode=MULTIRUN
""")
OF_BARS = listed("""
data.path=~/bars.csv  data.path=glob(*.csv)  data.path=BTCUSDT.P, 60.csv  data.path='a=b.csv'
data.path=a#b.csv,bars.csv  data.volume_column=volume  data.volume_column=<TICKVOL>
data.timestamp_column=timestamp
""")
OPTIONS = listed("""
-m  --multirun  --quiet  --cfg  --cfg=job  job  --resolve  --info  --package  data  --config-dir  .
--config-name  --config-path=.  -r  --help  --hydra-help  --version  --shell-completion
--experimental-rerun  x.pkl  -  --  --nonsense  -x  word
""")
VALUES = listed("""
null  true  0  -1  1e400  -inf  nan  1e12  0x10  1_000  []  {}  [1,[2]]  {min: 2, max: 5}  '  "  ''
a,b  a,,b  ,  2,2  choice()  choice(1,1)  range(1,1e9)  range(3,1)  range(1,2,0)  interval(0,1)
shuffle(1,2)  sort(3,2)  tag(a,1)  glob(*)  glob([)  int(x)  f(x)  ${nope}  ${oc.env:NOPE}
${model.n_init}  ${model  ${  $HOME  $(x)  ~  ~/x  ..  .  /  /proc/x  a/b  a\\b  a\\,b  #  a#b  a=b
<a>  a b  ä  中  99999999999D  [99999999999D]  0D  2024-13-45  2200-01-01  http://127.0.0.1:9
localhost:5000  databricks  file:///tmp  postgresql://u:p@127.0.0.1:9/x  bars.csv/x
""")
VALUES += ["", " a", "\u202e", "\x1b[31m", "\n", "\t", "\udcff", "\x7f", "9" * 30, "9" * 5000]
VALUES += ["x" * 3000, "[" * 400, "{" * 3000, "(" * 3000]
HARD = """
-m model.n_states=2,2
-m features=v1,v1 model.n_states='choice(2,02)'
-m data=bars data.bar_stamp=open 'data.path=glob(*.csv)'
data=bars data.bar_stamp=open 'data.path=~/BTCUSDT.P, 60.csv'
data=bars data.bar_stamp=open 'data.path=a#b.csv'
data=bars data.bar_stamp=open data.path=BTCUSDT.P, 60.csv
data=bars data.bar_stamp=open data.path=bars.csv data.volume_column=none tracking.uri=sqlite:///x/m
'model.state_grid={min: 2, max: 5}'
model=5
data=null
model=
-m --cfg=job
--cfg nonsense
--resolve
hydra.run.dir=/proc/x
-m hydra.sweep.dir=bars.csv/x
hydra.sweeper.params.model.n_states=2,3
start.parent_run=x
hydra.job_logging.root.level=X
hydra.job.env_copy=[NOPE]
++sweep=null
model.n_states=1e400
features=v2 features.vwap_hours=1e300
timeframe.timeframes=[99999999999D]
-m model.n_init='range(1,1e12)'
-m model.n_init='range(1,101)' model.random_state='range(0,101)'
registry.name=..
split=dates split.train_end=now split.val_end=nan
sweep_id="a'b" -m
data.name='${nope}'
+a=1
""".strip().splitlines()
SIGNS = ",=#{}[]()'\"$@:\\~+<>&|;*?!%^`/. \t\u00e4\u20ac"
SMALL = ("data.n_bars=2500", "model.n_init=1", "model.n_iter=5")


def override_sets(seed: int) -> Callable[[int], Case]:
    """Sets of overrides by number: first the HARD ones, then valid words, most of them changed."""
    _load()
    bars = _bars()
    files = dict.fromkeys(("bars.csv", "BTCUSDT.P, 60.csv", "a#b.csv", "a=b.csv"), bars)

    def case(number: int) -> Case:
        if number < len(HARD):
            words = [*SMALL, *shlex.split(HARD[number])]
        else:
            words = override_set(random.Random(f"{seed} {number}"))
        return Case(ascii(words), files, lambda: _train(words))

    return case


def override_set(rng: random.Random) -> list[str]:
    """Words of a command line."""
    words = rng.sample(VALID, rng.randint(1, 4)) + ["-m"] * (rng.random() < 0.7)
    if rng.random() < 0.3:
        words += ["data=bars", "data.bar_stamp=open", "data.path=bars.csv", rng.choice(OF_BARS)]
    if rng.random() < 0.2:
        words += rng.sample(OPTIONS, rng.choice((1, 1, 2)))
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3))):
        place = rng.randrange(len(words))
        if words[place] == "-m" and rng.random() < 0.8:
            continue
        words[place : place + 1] = rng.choice(CHANGES)(words[place], rng)
    words = list(SMALL) + words
    return [word.replace("\0", "") for word in words]


def _new_value(word: str, rng: random.Random) -> Iterator[str]:
    yield f"{word.partition('=')[0]}={rng.choice(VALUES)}"


def _no_value(word: str, rng: random.Random) -> Iterator[str]:
    yield word.partition("=")[0]


def _other_name(word: str, rng: random.Random) -> Iterator[str]:
    name, _, value = word.partition("=")
    names = [other.partition("=")[0] for other in VALID]
    parts = [rng.choice(names), name[:-1], f"{name}s", name.upper(), f"{name}.x", f"x.{name}", ""]
    parts += [name.replace(".", "/"), name.replace(".", " "), name.split(".")[0], f"{name}@x", "ä"]
    yield f"{rng.choice(parts)}={value}"


def _prefix(word: str, rng: random.Random) -> Iterator[str]:
    yield rng.choice(("+", "++", "~", "+++", "~~", "-", "--", "=", " ", "hydra.", "@")) + word


def _lost_sign(word: str, rng: random.Random) -> Iterator[str]:
    place = rng.randrange(len(word) + 1)
    yield word[:place] + word[place + 1 :]


def _more_signs(word: str, rng: random.Random) -> Iterator[str]:
    place = rng.randrange(len(word) + 1)
    yield word[:place] + "".join(rng.choices(SIGNS, k=rng.randint(1, 3))) + word[place:]


def _swept(word: str, rng: random.Random) -> Iterator[str]:
    yield f"{word},{rng.choice(VALUES)}"


def _wrapped(word: str, rng: random.Random) -> Iterator[str]:
    name, _, value = word.partition("=")
    around = (
        "'{}'",
        '"{}"',
        "[{}]",
        "{{a:{}}}",
        "choice({0},{0})",
        "sort({})",
        "str({})",
        "${{{}}}",
    )
    yield f"{name}={rng.choice((*around, '{0},{0}')).format(value)}"


def _twice(word: str, rng: random.Random) -> Iterator[str]:
    yield from (word, word)


def _gone(word: str, rng: random.Random) -> Iterator[str]:
    yield from ()


CHANGES = (
    *(_new_value, _new_value, _new_value, _no_value, _other_name, _prefix, _lost_sign),
    *(_more_signs, _more_signs, _swept, _wrapped, _wrapped, _twice),
)


def _train(words: list[str]) -> None:
    """Be `hmm-train` with these words, up to the point where a fit or a recording would begin."""
    import hmm_exp.experiment.prepare
    from hmm_exp import train
    from hmm_exp.config import Config
    from hmm_exp.sweep import child, sweep
    from hmm_exp.sweep.plan import SweepPlan

    prepare = hmm_exp.experiment.prepare.prepare

    def prepared(*cells: Config) -> None:
        for settings in cells[:3]:
            n_bars = min(settings.data.n_bars, 3_000)
            prepare(replace(settings, data=replace(settings.data, n_bars=n_bars)))
        raise SystemExit(ACCEPTED)

    def check_data(plan: SweepPlan) -> None:
        prepared(*plan.variations)

    hmm_exp.experiment.prepare.prepare = prepared  # type: ignore[assignment]
    sweep.check_data = check_data  # type: ignore[assignment]
    child.worker = lambda: None  # type: ignore[assignment, return-value]
    sys.argv = ["hmm-train", *words]
    train.main()


def _load() -> None:
    """Import and compile, once for all forks."""
    from hydra.core.plugins import Plugins

    from hmm_exp import callback
    from hmm_exp.config import Config, checked
    from hmm_exp.experiment.prepare import prepare
    from hmm_exp.sweep import cell

    assert all((callback, cell, Plugins.instance()))
    config = Config()
    config.data.n_bars = 3_000
    prepare(checked(config))


def _bars() -> bytes:
    from hmm_exp.market.synthetic import make_market

    frame = make_market(n_bars=2500, seed=1).frame
    return (
        frame.assign(timestamp=frame["timestamp"].dt.tz_localize(None)).to_csv(index=False).encode()
    )
