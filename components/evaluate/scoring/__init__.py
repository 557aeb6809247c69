"""How good the pictures are, and whether that is good enough to publish."""
