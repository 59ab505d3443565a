"""Runs: configuration, training, evaluation of a run folder, and what is installed."""
