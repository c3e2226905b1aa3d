"""The TensorRT plugin library: found, verified, built on the device, checked in a real registry.

Imports nothing heavy: engines ask here for the path and the digest of the library.
"""

from __future__ import annotations

from edgeseg.plugins.library import FILE, PluginLibrary, plugin_library

NAMESPACE, VERSION = "edgeseg", "1"
PREFIX = "Edgeseg"
"""A plugin is named after its operator with this prefix: TensorRT's parser looks a node up by its operator name alone
before it looks for plugins, and has an answer of its own for MaxUnpool, in any domain: no."""

OPERATORS = ("RoIAlign", "MaxPoolArgmax", "MaxUnpool", "MaxPoolIndices", "MaxUnpoolIndices", "UpsampleArgmax")

__all__ = ["FILE", "NAMESPACE", "OPERATORS", "PREFIX", "VERSION", "PluginLibrary", "plugin_library"]
