"""Publishes a learned concept: immutable versions in object storage, and aliases that point at one."""
