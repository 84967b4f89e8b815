"""Names of the tags on runs and model versions: the contract between recording, choice and gate."""

LONGEST = 5_000  # characters that a tag keeps of a longer text

SWEEP_ID = "sweep_id"
# "sweep" on a parent run, "symbol" on one of a panel, "cell" on one with a model, `POOL` on one
# with a model of all symbols of a panel.
KIND = "kind"
POOL = "pool"  # the kind and the instrument of such a run; on the panel the run of the chosen one
SYMBOL = "symbol"  # of a panel
N_SYMBOLS = "n_symbols"  # on the parent run of a panel
FDR = "fdr"  # false discovery rate of a panel's promotions; absent if its gate asks for no gain
CELL = "cell"  # the cell's name in words, such as "v1@1H diag K=3"
FINGERPRINT = "fingerprint"
OBSERVATION_SPACE = "observation_space"
FEATURE_SET = "feature_set"
TIMEFRAME = "timeframe"
GIT_SHA = "git_sha"
DATA_DIGEST = "data_digest"
DATA_READ = "data_read"  # what was read and what of it the features can use, a line each
DATA_WARNINGS = "data_warnings"  # what is doubtful about the data as read, joined by "; "
BIC_DOUBT = "bic_doubt"  # why BIC cannot choose a number of states in this observation space
STATUS_REASON = "status_reason"
INSTRUMENT = "instrument"
DATA_KIND = "data_kind"
UNSCORED = "unscored"  # JSON: why scores are missing, by what is missing; absent when none is
NO_ERRORS = "no_errors"  # why standard errors are missing; absent when none is
FAULTS = "faults"  # hard faults joined by "; ", absent when there are none
CRITERIA_BY_STATES = "criteria_by_states"  # JSON of a run's selection table
REGIME_NOW = "regime_now"
NOW = "now"  # on a symbol's run, followed by .regime, .since or .probability
GATE_DECISION = "gate_decision"
GATE_REASONS = "gate_reasons"
GATE_NOTES = "gate_notes"  # what the gate measured, whether it refused or not
GATE = "gate"  # name of the gate that decided
PARENT_RUN = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
N_CELLS = "n_cells"  # of a search, until it ends, its trials
SEARCH = "search"  # on the parent run of a search: the objective; absent of a grid
N_POSSIBLE = "n_possible"  # of a search: cells among which it chose; empty where without end
WINNER = "winner"
RANK = "rank"  # of a cell in its sweep: "1 winner", "2", "3 ineligible"; see `ranks`
VERDICT = "verdict"  # of a sweep: how its winner was chosen, a reason a line
OWNER = "owner"  # on a RUNNING run: host, process and its start
COMMAND = "command"  # what started a sweep, or a single run, in a shell
ATTEMPT = "attempt"  # how many times the sweep was started when the cell was
LOG = "log"  # path of a cell's own log, on the machine where it ran
REPLACES = "replaces"  # on a model version: the version it took Production from
PROMOTION = "promotion"  # on a model version: STARTED until it is proven in Production, then DONE
STARTED, DONE = "started", "done"
LABELS = "labels"  # on a model version: whether its labels are those before, or why they are not
ROLLED_BACK = "rolled_back"  # on a model version: when, and to which
