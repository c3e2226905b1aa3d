"""The ``edgeseg`` command: one file per sub-command, loaded only when it runs."""
