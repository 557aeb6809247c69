"""Trains the placeholder rows: one step with a room for each framework, and one for several nodes."""
