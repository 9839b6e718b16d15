"""Which GPU mixes could serve a model: menus, cheapest first."""
