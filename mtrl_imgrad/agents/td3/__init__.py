"""Multi-task TD3."""
