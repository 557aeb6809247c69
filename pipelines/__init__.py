"""The pipelines: which step depends on which, their presets, and the command that compiles and runs them."""
