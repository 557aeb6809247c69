"""Fills the model store from a folder, a bucket or the Hugging Face Hub, and gives a reference."""
