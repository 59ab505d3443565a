"""What off-policy agents share: the replay by task."""
