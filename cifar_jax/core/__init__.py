"""The experiment as pure functions: plain Flax layers, optax, and nothing else of this package.

Read `model.py` first, then `train.py`. Both are what every command of the package runs.
"""
