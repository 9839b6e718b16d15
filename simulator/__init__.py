"""Modelled clusters: one physics for every simulated thing, and the fleet of simulated nodes."""
