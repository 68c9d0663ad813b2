"""How well a base finds what is known to be in it."""
