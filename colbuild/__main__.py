"""`python -m colbuild` is `colbuild`."""

import os
import sys

if __name__ == "__main__":
    # `-m` looks for modules in the working folder first, where a project or a package may hold a `json.py`; the command
    # `colbuild` does not. colbuild itself may lie there: then it stays.
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):  # noqa: PTH120
        del sys.path[0]

    from colbuild.cli import main

    main()
