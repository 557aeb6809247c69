"""Framework-free code that every step imports: artifacts, storage, the model store, prompts, errors, logs."""
