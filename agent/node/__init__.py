"""The daemon of a GPU node: inventory, telemetry, power leases and commands over one stream to the hub."""
