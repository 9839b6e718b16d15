"""Figures against anchors. `python -m benchmarks NAME [--data DIR] [--seed N]`; never timed tests."""
