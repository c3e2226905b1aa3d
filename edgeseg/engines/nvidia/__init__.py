"""What the ``tensorrt`` and ``rtx`` backends share. Both libraries have nearly one Python interface, so each function here
takes the imported module as ``trt`` and asks it by ``hasattr`` for what not every version has.

``builder`` graph -> engine; ``child`` and ``worker``: that in a process of its own; ``layers`` what an engine consists of;
``device`` the GPU; ``cuda`` memory, streams and graphs; ``arrays`` other libraries' device memory; ``runner`` the session;
``frames`` frame -> label map without leaving the device.
"""
