"""What the fault and fuzz tests did, which conftest.py adds up over processes and reports."""

from collections import Counter

counts: Counter[str] = Counter()
