"""The step `evaluate`: samples of the learned concept, scores, a report, and a gate before publishing."""
