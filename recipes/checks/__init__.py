"""What can be known of a recipe without work, one module for each part of it."""
