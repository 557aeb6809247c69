"""Further places for a version of the registry: the Hugging Face Hub, a Kubeflow Model Registry, a complete pipeline.

Each is a copy of what the registry holds, made after it, and made again without harm.
"""
