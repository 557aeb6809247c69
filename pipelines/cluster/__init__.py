"""Runs on a cluster, by the API of Kubeflow Pipelines: submitted, scheduled, watched and ended."""
