"""Power leases on their way to the agents, through the hub."""

from __future__ import annotations

from cluster.actions import GrantPower, Stamped
from controller.hub.commands import GrantPower as GrantCommand
from controller.hub.service import Hub
from controller.hub.sessions import HubError
from controller.leadership.gate import Gate


class PowerSender:
    """Sends grants; an agent that is not connected or slow simply gets none, and falls to its safe cap."""

    def __init__(self, hub: Hub | None, gate: Gate) -> None:
        """Bind to a hub (None: nobody to send to). Nothing is sent while `gate` is closed."""
        self._hub = hub
        self._gate = gate

    def grant(self, stamped: Stamped, ttl_seconds: float) -> tuple[int, int] | None:
        """Send a grant; the (epoch, sequence) it carries, or None when it could not be sent."""
        action = stamped.action
        if self._hub is None or not isinstance(action, GrantPower) or not self._gate.passes("command"):
            return None
        command = GrantCommand(watts=action.watts, clock_mhz=action.clock_mhz, ttl_seconds=ttl_seconds)
        try:
            sequence = self._hub.send(action.node, command, stamped.id, stamped.issued_seconds + ttl_seconds)
        except HubError:
            return None
        return self._hub.epoch, sequence
