"""``python -m tenure.client.cli`` is ``tenure``: for processes that must run this very interpreter."""

import sys

from tenure.client.cli import main

sys.exit(main())
