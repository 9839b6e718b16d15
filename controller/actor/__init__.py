"""Re-checks each action against the state of now, and carries it out."""
