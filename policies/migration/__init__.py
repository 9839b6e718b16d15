"""Which running requests move to another instance: one policy a file, each a pure function of a `MigrationView`."""
