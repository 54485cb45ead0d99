"""The forms in which a checkpoint may come."""
