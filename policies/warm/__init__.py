"""How warm idle capacity is kept."""
