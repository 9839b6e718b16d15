"""Objects of the cluster behind one interface: embedded, or the Kubernetes API server."""
