"""What all agents share: tasks, arguments, learning with K tasks."""
