"""Checkpoints of agents: `Checkpointer` asks an agent for its parts."""
