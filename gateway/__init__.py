"""The request plane: takes requests, holds, dispatches and retries them, and reports the load."""

from runtime import ciphers as ciphers  # before grpc: it leaves gRPC no TLS but 1.3
