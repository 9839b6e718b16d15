"""The operator: resources, store, agent hub, observer, loops, actor, ledger and metrics."""

from runtime import ciphers as ciphers  # before grpc: it leaves gRPC no TLS but 1.3
