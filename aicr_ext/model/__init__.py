"""The network: configuration, blocks, transforms, entropy model, and the whole of them in :mod:`.aicr`."""
