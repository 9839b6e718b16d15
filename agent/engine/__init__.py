"""What serves inside a launcher: the engine adapter and the simulated engine host."""
