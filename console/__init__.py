"""The command line `plimsoll`, and the demo that composes every other room."""

from runtime import ciphers as ciphers  # before grpc: it leaves gRPC no TLS but 1.3
