"""Simulators behind a multi-task vector environment, one a file."""
