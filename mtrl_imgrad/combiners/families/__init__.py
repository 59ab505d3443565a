"""Base classes of the methods: by what a step needs, and by rules that several share."""
