"""The gallery: one page over all concepts of a registry."""
