"""``make simulate``: prints the report; exit code 1 when anything was violated."""

from __future__ import annotations

import asyncio
import sys

from simulation.options import parse
from simulation.program import simulate
from simulation.report import report

simulation, costs = asyncio.run(simulate(parse(), lambda line: sys.stderr.write(line + "\n")))
sys.stdout.write(report(simulation, costs) + "\n")
sys.exit(1 if simulation.ledger.violation_count else 0)
