"""The step that measures which known word explains the pictures best before any training."""
