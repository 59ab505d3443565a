"""The entry point, ``mtrl-imgrad`` and ``python -m mtrl_imgrad``: the command line, or a line on what it needs."""

from __future__ import annotations

import sys

from mtrl_imgrad.errors import MissingDependencyError


def main() -> int:
    """Run the command line; 1 if its packages are not installed."""
    try:
        from mtrl_imgrad import cli
    except MissingDependencyError as error:
        print(f"MissingDependencyError: {error}", file=sys.stderr)
        return 1
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
