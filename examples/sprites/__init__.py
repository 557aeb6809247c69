"""The tiny world: a small base model, the pictures it was trained on, and concepts that it has never seen."""
