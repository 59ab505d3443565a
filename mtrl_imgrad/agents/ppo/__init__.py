"""Multi-task PPO."""
