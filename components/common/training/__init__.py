"""The training loop and what determines a run, shared by the PyTorch and the Flax trainer."""
