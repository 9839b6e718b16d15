"""From the API server's objects, the agents' reports and the gateways' sketches to the model."""
