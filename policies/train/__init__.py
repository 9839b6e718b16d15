"""Which jobs run, on which nodes, restored from where."""
