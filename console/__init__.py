"""The command line `plimsoll`, and the demo that composes every other room."""
