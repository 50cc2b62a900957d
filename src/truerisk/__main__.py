"""``python -m truerisk``."""

from truerisk.cli import main

raise SystemExit(main())
