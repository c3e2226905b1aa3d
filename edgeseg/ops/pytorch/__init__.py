"""The operators for PyTorch: ``torch.library`` definitions with gradients, as the models call them and the exporter translates them."""
