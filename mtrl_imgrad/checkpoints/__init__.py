"""The checkpoint format of agents and supervised runs."""
