"""Modelled clusters: one physics for every simulated thing, and the fleet of simulated nodes."""

from simulator import compiled

compiled.switch_on()
