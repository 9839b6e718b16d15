"""Performance profiles: how many requests per second one replica of a variant carries under an objective."""
