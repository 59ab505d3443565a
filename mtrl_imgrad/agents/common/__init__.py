"""All agents, the common part: tasks, arguments, learning with K tasks."""
