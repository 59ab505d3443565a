"""What the pages tell a reader to type: commands and Python."""
