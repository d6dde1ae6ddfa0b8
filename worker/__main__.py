"""``python -m tenure.worker``."""

import sys

from tenure.worker.main import main

sys.exit(main())
