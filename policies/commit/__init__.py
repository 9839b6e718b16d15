"""One inventory, shared by everyone: final mixes, pool shares and prices."""
