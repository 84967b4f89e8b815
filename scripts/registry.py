"""The history of a registered model: `hmm-registry`."""

import sys

from hmm_exp.commands.registry import main

if __name__ == "__main__":
    sys.exit(main())
