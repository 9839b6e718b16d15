"""Which GPUs and where: accelerator catalogue, performance profiles, selection of GPU mixes."""
