"""Serve a store for many machines, MLflow over a private PostgreSQL: `hmm-server`."""

import sys

from hmm_exp.commands.server import main

if __name__ == "__main__":
    sys.exit(main())
