"""Requests to replay: readers of published traces, and generators of arrivals and lengths with published statistics."""
