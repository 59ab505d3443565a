"""Runs of agents: configuration, training, evaluation."""
