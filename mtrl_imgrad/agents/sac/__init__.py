"""Multi-task SAC."""
