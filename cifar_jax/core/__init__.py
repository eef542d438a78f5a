"""The experiment as pure functions, on plain Flax layers and optax alone.

Read `model.py` first, then `train.py`. Every command of the package runs both.
"""
