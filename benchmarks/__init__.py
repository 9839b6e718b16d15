"""Figures against anchors. `python -m benchmarks NAME [--data DIR] [--seed N]`; never timed tests."""

from runtime import ciphers as ciphers  # before grpc: it leaves gRPC no TLS but 1.3
