"""The operators for PyTorch: ``torch.library`` definitions with gradients, which models call and the exporter translates."""
