"""Names of the files in the directory of a run and of a study."""

# A run.
CHECKPOINTS = "checkpoints"
CONFIG = "config.toml"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.npz"
RESULTS = "results.json"
TENSORBOARD = "tensorboard"

# A study.
GROUPS = "groups"
MODEL_CARD = "model_card.md"
STUDY = "study.json"
SUMMARY = "summary.json"

# Both.
LOCK = "lock"
REPORT = "report.html"
REPORT_TEXT = "report.md"
