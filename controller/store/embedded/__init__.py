"""The store in this process: the API server's semantics without the API server."""
