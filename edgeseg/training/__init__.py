"""Training: losses, schedules, the loop."""
