"""edgeseg: train, export, calibrate, build and run segmentation networks on edge devices."""

__version__ = "0.1.0"
