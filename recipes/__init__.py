"""Recipes: a whole release as one file, and what runs it on one machine or many."""
