"""The container images: one folder an image, and how they are pushed."""
