"""Base classes of methods that share a rule."""
