"""The store on a Kubernetes API server: the official client's way there, our own reads, watches and writes."""

from controller.store.kube.access import Access, AccessError
from controller.store.kube.store import KubeStore
from controller.store.kube.transport import Transport

__all__ = ["Access", "AccessError", "KubeStore", "Transport"]
