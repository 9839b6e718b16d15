"""GPU selection: the cheapest mix of variants that carries a load under its objective."""
