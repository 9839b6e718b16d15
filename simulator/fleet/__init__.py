"""Thousands of simulated agents in one process, speaking the real protocol and playing kubelet."""
