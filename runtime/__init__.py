"""What every process shares: clocks, mutual TLS and its authority, channel options, logging."""
