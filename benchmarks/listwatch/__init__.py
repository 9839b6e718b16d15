"""A list/watch server on loopback that may misbehave: what a client must stand, made by hand.

It speaks as much of the Kubernetes API as a cache needs (lists with limit and continue, watches with versions and
bookmarks), over real HTTP, and does on demand what a real server does only on its worst days. It stands here because
benchmarks and tests both use it, and benchmarks import no tests. What it says in its good moments is held to a real API
server by tests/store/test_listwatch.py.
"""

from benchmarks.listwatch.collection import Collection, World
from benchmarks.listwatch.faults import Answer, AnswerKind, StreamFault
from benchmarks.listwatch.server import ListWatchServer

__all__ = ["Answer", "AnswerKind", "Collection", "ListWatchServer", "StreamFault", "World"]
