"""The demo: one hour of a mixed cluster in about a minute, on a real or generated request trace."""
