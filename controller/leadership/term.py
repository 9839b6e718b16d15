"""A term: what hub, ledger and metrics are told of one leadership."""

from __future__ import annotations

import logging

from controller.hub.service import Hub
from controller.leadership.elector import Elector
from controller.ledger.ledger import Ledger
from controller.ledger.rows import EpochRow
from controller.metrics import Metrics

log = logging.getLogger("plimsoll.leadership")


class Term:
    """Follows an elector's epoch. `epoch` is the one that everything is stamped with; 0 before the first."""

    def __init__(
        self, elector: Elector, hub: Hub | None, ledger: Ledger | None, metrics: Metrics, version: str
    ) -> None:
        """Bind to whom an epoch is told."""
        self.epoch = 0
        self._elector = elector
        self._hub = hub
        self._ledger = ledger
        self._metrics = metrics
        self._version = version
        self._began_seconds = 0.0

    def follow(self, now_seconds: float) -> bool:
        """Take over the elector's epoch where it is new: whether it was."""
        epoch, before = self._elector.epoch, self.epoch
        if epoch <= before or not self._elector.leads:
            return False
        if before:
            self._write_down(now_seconds)
        self.epoch, self._began_seconds = epoch, now_seconds
        if self._hub is not None:
            self._hub.raise_epoch(epoch)
        self._write_down(None)
        self._metrics.leading(True, epoch)
        log.info("leading with epoch %d", epoch)
        return True

    def end(self, now_seconds: float) -> None:
        """The leadership is over, by whatever cause."""
        if self.epoch:
            self._write_down(now_seconds)
            self._metrics.leading(False, self.epoch)
        for call, count in sorted(self._elector.gate.refused.items()):
            self._metrics.refused(call, count)

    def _write_down(self, ended_seconds: float | None) -> None:
        if self._ledger is not None:
            row = EpochRow(
                self.epoch, self._elector.identity, self._version, self._began_seconds, ended_seconds
            )
            self._ledger.epoch(row)
