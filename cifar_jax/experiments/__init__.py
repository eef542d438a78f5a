"""Studies as Python values: their arms, claims and published numbers."""
