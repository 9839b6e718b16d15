"""The operator: resources, store, agent hub, observer, loops, actor, ledger and metrics."""
