"""A real Kubernetes control plane for development and tests: found or built, started, broken, stopped.

Nothing is downloaded but Go modules (and Go itself where there is none); no root, no containers. `make control-plane`
builds it, `make cluster` runs one; the tests' fixture is in `tests/controlplane.py`.
"""

from console.controlplane.components import Component as Component
from console.controlplane.errors import ControlPlaneError as ControlPlaneError
from console.controlplane.plane import ControlPlane as ControlPlane
