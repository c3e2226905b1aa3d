"""Feature extractors with torchvision's parameter names, so that a downloaded checkpoint loads as it is."""
