"""Worked examples that need no download."""
