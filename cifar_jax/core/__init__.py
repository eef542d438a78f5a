"""The experiment as pure functions, on plain Flax layers and optax only.

Read `model.py` first, then `train.py`. The commands `train`, `study` and `evaluate` run both.
"""
