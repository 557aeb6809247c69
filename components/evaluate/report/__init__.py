"""The page that shows an evaluation to people."""
