"""Who draws a training's curves: each by its own library, which is imported when it is asked for."""
