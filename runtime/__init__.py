"""What every process shares: clocks, identities and mutual TLS 1.3, channel options, logging.

Importing it also makes gRPC refuse anything below TLS 1.3, so it must come before `grpc`: each package that
speaks gRPC imports `runtime` in its `__init__`.
"""

from runtime import ciphers as ciphers
