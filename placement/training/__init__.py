"""Training placement: which island takes a gang, and how its ranks are cut."""
