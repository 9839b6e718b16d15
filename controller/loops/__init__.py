"""The operator's loops: view, decide, stamp. What they decide is carried out by `controller.actor`."""
