"""Names of the files and directories in a run's and in a study's directory."""

# A run.
CHECKPOINTS = "checkpoints"
CONFIG = "config.toml"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.npz"
RESULTS = "results.json"
TENSORBOARD = "tensorboard"

# A study.
FIGURES = "figures"
GROUPS = "groups"
MODEL_CARD = "model_card.md"
STUDY = "study.json"
SUMMARY = "summary.json"

# Tables of a study, or of a comparison.
RUNS = "runs.csv"
TABLE_TEX = "table.tex"
TABLE_TEXT = "table.md"

# Both.
ANALYSIS = "analysis.json"
PREDICT = "predict.json"
LOCK = "lock"
REPORT = "report.html"
REPORT_TEXT = "report.md"
SOURCE = "experiment.py"  # Copy of the experiment file.
IN_PYTHON = "Python"  # Experiment file of runs that were trained from Python.

# Names in a study's directory that no arm can have.
NOT_ARMS = (GROUPS, FIGURES, LOCK)

# Parts of an analysis, in the page's order. Each is a module of `cifar_jax.analysis`.
PARTS = (
    "calibration",
    "corruptions",
    "published_sets",
    "unknown",
    "errors",
    "duplicates",
    "landscape",
    "curvature",
)
# Parts that are measured only with one of these flags, unless `--only` names them.
PARTS_WITH_FLAGS = {"published_sets": ("cifar10_c", "cifar10_1")}
CORRUPTION_IMAGES = 1_000  # test images to corrupt; all 10,000 of CIFAR-10 take ten times as long

# Formats of `export`, with the ends of their files' names.
EXPORTS = {
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "stablehlo": ".stablehlo",
    "torch": ".pt2",
}

STANDARD_INPUT = "-"  # as the name of a picture
