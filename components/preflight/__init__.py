"""The first step: looks at every parameter and every source before anything expensive starts."""
