"""`python -m hwnas`."""

from __future__ import annotations

from hwnas.cli.main import main

main()
