"""The parts of Stable Diffusion 1.x and 2.x as Flax NNX modules, their loading, and sampling: a library, not a step."""
