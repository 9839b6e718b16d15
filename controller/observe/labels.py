"""Labels and annotations the operator writes on pods, and those it reads from nodes."""

from __future__ import annotations

MANAGER = "plimsoll-operator"
"""Field manager of every write of the operator."""

MANAGED_BY = "app.kubernetes.io/managed-by"
SERVICE = "plimsoll.dev/service"
JOB = "plimsoll.dev/job"
ATTEMPT = "plimsoll.dev/attempt"
NODE_RANK = "plimsoll.dev/node-rank"
GENERATION = "plimsoll.dev/generation"
VARIANT = "plimsoll.dev/variant"
LAUNCH = "plimsoll.dev/launch"
DRAIN_UNTIL = "plimsoll.dev/drain-until-seconds"
REASON = "plimsoll.dev/reason"
RENDEZVOUS = "plimsoll.dev/rendezvous"
EPOCH = "plimsoll.dev/epoch"

PRODUCT = "nvidia.com/gpu.product"
"""GPU feature discovery's label of the product."""
POOL = "plimsoll.dev/pool"
ISLAND = "plimsoll.dev/island"
ZONE = "topology.kubernetes.io/zone"
BLOCK = "topology.kubernetes.io/block"
RACK = "topology.kubernetes.io/rack"
CAPACITY_TYPE = "karpenter.sh/capacity-type"
