"""Comparisons: methods by seeds in one folder, run anywhere, then figures, statistics and a report."""
