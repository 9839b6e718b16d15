"""The discrete-event cluster: the same physics as the fleet and the same policies as the operator, in virtual time."""
