"""The command line ``tenure``: one file for each noun.

``main`` is the console script. It turns every error of the tree into one line on stderr and the exit code of
``exits.py``; a traceback means a fault in Tenure itself.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tenure`` with ``argv`` (default: the process's own); returns the exit code.

    What a command printed is on stdout; errors and progress are on stderr.
    """
    from tenure.client.cli.app import app
    from tenure.client.cli.output import print_error
    from tenure.common.errors import TenureError
    from tenure.common.exits import ExitCode, exit_code_of

    try:
        app(args=None if argv is None else list(argv), prog_name="tenure")
    except TenureError as error:
        print_error(str(error))
        return exit_code_of(error)
    except TimeoutError as error:
        print_error(f"not in time: {error}")
        return ExitCode.TIMED_OUT
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else ExitCode.OK if ended.code is None else ExitCode.NO
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return ExitCode.OK
