"""``tenure version``."""

from __future__ import annotations

import platform
import sys

from tenure.client.cli.options import OutputOption
from tenure.client.cli.output import OutputFormat, print_json


def version(output: OutputOption = OutputFormat.TABLE) -> None:
    """Say which version of Tenure this is.

    \b
    Examples:
      tenure version
      tenure version --output json | jq -r .tenure
    """
    import tenure

    if output is OutputFormat.JSON:
        print_json({"tenure": tenure.__version__, "python": platform.python_version()})
    else:
        sys.stdout.write(f"tenure {tenure.__version__}, Python {platform.python_version()}\n")
