"""The nouns: what a GPU cluster is, what may be done to it, and why. Imports nothing of ours."""
