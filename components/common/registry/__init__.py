"""The registry: immutable versions of concepts in object storage, and the aliases that point at them."""
