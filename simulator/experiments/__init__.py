"""Experiments: one scenario under many settings and seeds, on many processes, with nothing lost when one dies."""
