"""Count the work of fault and fuzz tests. conftest.py sums it over processes and prints it."""

from collections import Counter

counts: Counter[str] = Counter()
