"""The same training on many nodes: launched as a TrainJob of Kubeflow Trainer, followed, and cancelled with its run."""
