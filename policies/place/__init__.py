"""On which nodes replicas live, and where traffic goes."""
