"""Statistics of what each choice does to a network: one statistic, one file; a class is its options."""
