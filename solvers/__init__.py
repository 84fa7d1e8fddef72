"""Solver backends, one file each; they import the core and never each other."""
