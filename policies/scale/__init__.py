"""How much capacity there should be, from load."""
