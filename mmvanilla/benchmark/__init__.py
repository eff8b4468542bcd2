"""VanillaNet measured against other networks."""
