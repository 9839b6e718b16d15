"""The store of another process, over mutual TLS: `RemoteStore` asks, `StoreServicer` answers on the operator's door.

Only the embedded store needs it; where there is an API server, everybody talks to that.
"""

from controller.store.remote.client import RemoteStore
from controller.store.remote.server import StoreServicer

__all__ = ["RemoteStore", "StoreServicer"]
