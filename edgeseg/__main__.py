"""``python -m edgeseg``: the same as the ``edgeseg`` script."""

import sys

from edgeseg.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
