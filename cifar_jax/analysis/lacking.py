"""Data that a measurement needs are missing."""

from cifar_jax.errors import UserError


class Lacking(UserError):
    """Data that a measurement needs are missing. The message says which, in one line."""
