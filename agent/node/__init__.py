"""The daemon of a GPU node: inventory, telemetry, power actuator, over real or simulated drivers."""
