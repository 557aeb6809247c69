"""What the web pages for people have in common: how they are made from a template, and how they look."""
