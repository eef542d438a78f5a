"""Controlled experiments on CIFAR-10 in pure-functional JAX."""

__version__ = "0.1.0"
