"""Thousands of simulated agents in one process, speaking the real protocol and playing kubelet."""

from runtime import ciphers as ciphers  # before grpc: it leaves gRPC no TLS but 1.3
