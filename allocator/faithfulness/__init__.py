"""Is a score to be believed? Predicted against measured losses on data that no profiler has seen."""
