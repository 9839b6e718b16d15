"""What the operator shows to Prometheus: declared once, set through typed methods, documented from the declaration."""

from controller.metrics.declared import DECLARED, Declared, Kind
from controller.metrics.metrics import HubTotals, Metrics, ServiceGauges
from controller.metrics.reference import reference_page

__all__ = ["DECLARED", "Declared", "HubTotals", "Kind", "Metrics", "ServiceGauges", "reference_page"]
