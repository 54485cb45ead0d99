"""What runs the units of a recipe."""
