"""Nodes bought and given back, through whatever the cluster has for it: Karpenter, or the cluster autoscaler."""
