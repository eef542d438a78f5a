"""Arms x seeds, and the statistics on them."""
