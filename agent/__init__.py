"""The node plane: the daemon of a GPU node, and the engines beside it."""
