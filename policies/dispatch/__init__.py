"""Where one request goes: one policy a file, each a pure function of a `DispatchView`."""
