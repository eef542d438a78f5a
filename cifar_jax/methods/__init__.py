"""Published methods for the fields of an `Experiment`, each on `core` alone.

None is part of the protocol: an arm, a flag or a file chooses them.
"""
