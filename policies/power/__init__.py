"""How many watts each node may draw."""
