"""Stands in for torchvision where its wheel does not fit the installed torch: what the reference script needs."""
