"""Off-policy agents, the common part: replay by task, training, policy."""
