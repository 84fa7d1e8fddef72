"""refine(): solve, measure what the solution rests on, solve again, and keep what held-in validation data prefer."""
