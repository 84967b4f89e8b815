"""How many errors below its mean a gain's lower bound lies, by number of bars and level.

Simulated by

    python -m benchmarks.critical_values

as the worst of eight kinds of worthless gains: independent normal, Student-t with three degrees of
freedom, and chi-square; autoregressions of .3, .7 and .9; wandering volatility; and a mean that
switches sign every 50 bars, faint enough to leave autocorrelations near .1 yet a long-run variance
of five times the variance, as the gains of regimes over a static density have on hourly BTC. This
last kind decides up to 5,000 bars. Independent gains of 1,000 bars then pass more rarely than
`level` says: 3 to 4 % instead of 5 %, and 1 to 1.5 % instead of 2.5 %. A component that is slower
still cannot be told from a gain in few bars, whatever the test: with 1,200 bars, one that switches
every 200 passes 2.5 % in 8 % of samples.

>>> MULTIPLIERS[0.025][BARS.index(1000)]
2.68
"""

BARS = (100, 200, 500, 1000, 2000, 5000, 20_000)
MULTIPLIERS = {  # level: one value for each of BARS; their simulation error is .02 to .05
    0.05: (4.28, 3.51, 2.48, 2.15, 1.99, 1.83, 1.75),
    0.025: (5.31, 4.66, 3.12, 2.68, 2.38, 2.22, 2.12),
    0.01: (6.65, 5.90, 4.10, 3.38, 2.95, 2.63, 2.49),
}
NORMAL = {0.05: 1.6449, 0.025: 1.9600, 0.01: 2.3263}  # of infinitely many bars
