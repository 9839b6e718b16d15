"""What an agent can run on: `nvml` (real GPUs) and `simulated` (modelled physics), behind one interface."""
