"""Data parallelism: the step that one process with the rows of all ranks would make. See docs/distributed.md."""
