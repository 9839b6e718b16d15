"""The node plane: the daemon of a GPU node, and the engines beside it."""

from runtime import ciphers as ciphers  # before grpc: it leaves gRPC no TLS but 1.3
