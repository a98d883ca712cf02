"""`python -m cmt` is `cmt`."""

from __future__ import annotations

from cmt.cli.main import main

if __name__ == "__main__":
    main()
