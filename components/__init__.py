"""The steps of the Textual Inversion pipeline, one folder a step, and the libraries they share."""

__version__ = "0.1.0"
