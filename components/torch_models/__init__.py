"""Loading, placeholder rows and sampling with torch and diffusers: a library for steps, not a step."""
