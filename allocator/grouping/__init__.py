"""Layers that belong together: sets named by rules, and sets that the network itself shows."""
