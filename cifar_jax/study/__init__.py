"""Studies: arms x seeds, and their statistics."""
