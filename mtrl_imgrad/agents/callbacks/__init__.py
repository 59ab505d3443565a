"""Callbacks that know of tasks: evaluation, gradient diagnostics, checkpoints, progress."""
