"""Named methods of the literature as recipes: which statistics, which loss, which solver; found by entry point."""
