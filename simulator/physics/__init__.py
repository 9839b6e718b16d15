"""How engines, power, clocks, load times and failures behave: pure state machines with injected time."""
