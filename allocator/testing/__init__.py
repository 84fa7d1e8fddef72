"""For those who write backends, profilers or importers: a dumb reference, random problems, hypothesis strategies."""
