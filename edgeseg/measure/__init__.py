"""What is measured of a model: accuracy, latency, agreement between engines; and the calibration that int8 rests on."""
