"""Worker processes that run rows of environments."""
