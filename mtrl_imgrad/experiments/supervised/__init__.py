"""Supervised runs: configuration, training, comparison, analysis."""
