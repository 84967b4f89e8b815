"""Build a feature table from a file of OHLCV bars: `hmm-features`."""

import sys

from hmm_exp.commands.features import main

if __name__ == "__main__":
    sys.exit(main())
