"""What serves inside a launcher: the engine adapter and the host that serves a node's engines to gateways."""
