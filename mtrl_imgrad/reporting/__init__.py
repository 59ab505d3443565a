"""What a run writes: atomic files, figures, tables."""
