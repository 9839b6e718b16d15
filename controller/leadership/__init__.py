"""Who leads: a Lease by monotonic clock, the epoch that fences agents, the gate before every write.

`Elector` takes and keeps the Lease, at most once in its life; `Gate` says at any moment whether it leads;
`GatedStore` asks the gate before every mutating call; `LeaderMark` labels the leader's own pod, so that the hub's
Service selects it alone.
"""

from controller.leadership.elector import Elector
from controller.leadership.gate import Gate, GatedStore, NotLeading
from controller.leadership.lease import LEASE_NAME, LeaseSettings

__all__ = ["LEASE_NAME", "Elector", "Gate", "GatedStore", "LeaseSettings", "NotLeading"]
