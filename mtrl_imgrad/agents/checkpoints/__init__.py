"""Checkpoints of agents: the format, what an agent puts into it, models of Stable-Baselines3."""
