"""Nodes as hardware: which of their GPUs belong to whom, and what of them is broken."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.physics.loading import StartSpec
from simulator.physics.specs import GpuSpec
from simulator.world.instances import Instance


class Machine:
    """One node. `used` names who has each GPU in use, `waiting` who starts there, and how, when it is sound again.

    A `down` one draws no power and has nobody running on it. A `fixed` one has the GPUs it has.
    """

    __slots__ = ("broken", "down", "fixed", "gpu", "gpus", "name", "used", "waiting")

    def __init__(self, name: str, gpu: GpuSpec, gpus: int = 0) -> None:
        self.name, self.gpu, self.gpus = name, gpu, gpus
        self.used: dict[int, str] = {}
        self.broken: set[int] = set()
        self.waiting: dict[str, StartSpec] = {}
        self.down = self.fixed = False

    def sound(self, gpus: Iterable[int]) -> bool:
        """Whether the node and these GPUs of it work."""
        return not self.down and self.broken.isdisjoint(gpus)

    def take(self, who: str, count: int) -> tuple[int, ...]:
        """The first free GPUs for somebody; a node is taken to have as many as are ever asked of it together.

        One that is fixed gives no more than it has.
        """
        free = [gpu for gpu in range(self.gpus) if gpu not in self.used][:count]
        if not self.fixed:
            wider = self.gpus + count - len(free)
            free += range(self.gpus, wider)
            self.gpus = wider
        self.used |= dict.fromkeys(free, who)
        return tuple(free)

    def leave(self, who: str) -> None:
        """Somebody's GPUs are free again."""
        self.used = {gpu: name for gpu, name in self.used.items() if name != who}


class Machines:
    """The nodes of a world, by name, and the GPUs of every instance."""

    __slots__ = ("_gpus", "by_name")

    def __init__(self) -> None:
        self.by_name: dict[str, Machine] = {}
        self._gpus: dict[str, tuple[int, ...]] = {}

    def found(self, name: str, gpu: GpuSpec, gpus: int = 0) -> Machine:
        """The node of that name, made where there was none, with at least so many GPUs."""
        machine = self.by_name.get(name)
        if machine is None:
            machine = self.by_name[name] = Machine(name, gpu)
        machine.gpus = max(machine.gpus, gpus)
        return machine

    def place(self, instance: Instance) -> None:
        """An instance comes to its node."""
        machine = self.found(instance.node, instance.group.gpu)
        self._gpus[instance.name] = machine.take(instance.name, instance.group.engine.tensor_parallel)

    def leave(self, instance: Instance) -> None:
        """An instance is gone for good."""
        self.by_name[instance.node].leave(instance.name)
        del self._gpus[instance.name]

    def gpus_of(self, instance: Instance) -> tuple[int, ...]:
        """Indices of the GPUs that an instance uses."""
        return self._gpus[instance.name]

    def users(self, machine: Machine, gpus: Iterable[int]) -> list[str]:
        """Who uses any of these GPUs, in order of the GPUs."""
        return list(dict.fromkeys(machine.used[gpu] for gpu in sorted(gpus) if gpu in machine.used))
