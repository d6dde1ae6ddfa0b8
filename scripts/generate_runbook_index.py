#!/usr/bin/env python3
"""Write the lists of alerts, in ops/runbooks/README.md and docs/operations.md, from the rules and their runbooks.

An alert's severity comes from ops/prometheus/rules, what it says in a line from the first line of its runbook.

Examples:
    scripts/generate_runbook_index.py            # rewrite both
    scripts/generate_runbook_index.py --check    # exit 1 and show the drift if one differs
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from generated_pages import ROOT, main, replace_section

RULES = ROOT / "ops" / "prometheus" / "rules"
RUNBOOKS = ROOT / "ops" / "runbooks"
INDEX = RUNBOOKS / "README.md"
OPERATIONS = ROOT / "docs" / "operations.md"
# In the order in which somebody who was woken would ask: is anything serving, is anything lost, is anything working?
FILES = {
    "alerts-masters": "Masters",
    "alerts-store": "The store",
    "alerts-leases": "Leases",
    "alerts-work": "Work",
    "alerts-workers": "Workers",
    "alerts-runs": "Slots, GPUs, checkpoints",
    "alerts-monitoring": "The monitoring itself",
}
HEAD = """\
# Runbooks

One page for each alert of [ops/prometheus/rules](../prometheus/rules): what it means, what to look at, what to do, when
it clears. The alert's annotation `runbook_url` names it ([how to make it a link](../prometheus/README.md#runbooks)).

*critical*: nothing moves or something is about to be lost; wake somebody. *warning*: look at it today. *none*: all is
well.

The commands are those of the [CLI](../../docs/cli.md); they need `--master` or `TENURE_MASTER`. The dashboards are in
`ops/grafana`. [operations.md](../../docs/operations.md#log-events) says what log events mean,
[metrics.md](../../docs/metrics.md) what metrics mean.

What stands in capitals is to be filled in:

| | |
| --- | --- |
| `SEARCH` | the alert's label `search`; `tenure searches list` has all |
| `TASK` | an id from `tenure tasks list --search SEARCH` or `tenure dead list` |
| `INSTANCE` | the alert's label `instance`: the address that is scraped |
| `WORKER` | an id from `tenure workers list`; of an instance, `tenure_worker_info` has it |
| `MASTER`, `PROMETHEUS`, `ALERTMANAGER` | the machine that it runs on |
| `PID` | the process; of a run, a child of its worker's |
| `GPU` | its number or UUID, as `nvidia-smi -L` has them |
| `DATA_DIR` | a master's `--data-dir`; with systemd `/var/lib/tenure/master` |
| `WORK_DIR` | a worker's `--work-dir`; with systemd `/var/lib/tenure/workers/WORKER` |
| `DIR` | where the backups are; with systemd `/var/lib/tenure/backups` |
| `POD` | a name from `kubectl -n tenure get pods` |

Words such as `INFO memory` are for the store: by `redis-cli` or `valkey-cli`, with `-s DATA_DIR/store.sock` for an
embedded one.

The pages speak of systemd. Elsewhere (`-f ops/compose.yaml` behind `docker compose`, unless you are there):

| systemd | compose | Kubernetes |
| --- | --- | --- |
| `systemctl status tenure-master` | `docker compose ps` | `kubectl -n tenure get pods` |
| `journalctl -u tenure-master` | `docker compose logs --since 1h master-1` | `kubectl -n tenure logs POD` |
| `systemctl restart tenure-master` | `docker compose restart master-1` | `kubectl -n tenure delete pod POD` |

<!-- alerts: written by scripts/generate_runbook_index.py -->
"""


def alerts(file: str) -> Iterator[tuple[str, str]]:
    """(name, severity) in the order of the file. Read as text: this needs no YAML parser where documents are made."""
    text = (RULES / f"{file}.yml").read_text()
    return iter(re.findall(r"^ +- alert: (\w+)$.*?^ +severity: (\w+)$", text, re.MULTILINE | re.DOTALL))


def line_of(name: str) -> str:
    """What the runbook says of itself."""
    match = re.match(rf"# {name}\n\n\*\w+\*: (.+?)\.\n\n", (RUNBOOKS / f"{name}.md").read_text(), re.DOTALL)
    if match is None:
        raise SystemExit(f"ops/runbooks/{name}.md must begin with '# {name}', an empty line and '*severity*: …'")
    return " ".join(match[1].split())


def tables(folder: str) -> str:
    """All alerts by subject; ``folder``: where the runbooks are, seen from the page."""
    found = []
    for file, subject in FILES.items():
        found.append(f"| {subject} | | |\n| --- | --- | --- |\n")
        found += [
            f"| [{name}]({folder}{name}.md) | {severity} | {line_of(name)} |\n" for name, severity in alerts(file)
        ]
        found.append("\n")
    return "".join(found)


def index() -> str:
    """ops/runbooks/README.md."""
    return f"{HEAD}\n{tables('').rstrip()}\n"


def operations() -> str:
    """docs/operations.md with its list of alerts."""
    return replace_section(OPERATIONS.read_text(), "alerts", f"\n{tables('../ops/runbooks/')}")


PAGES = {INDEX: index, OPERATIONS: operations}

if __name__ == "__main__":
    unknown = {path.stem for path in Path(RULES).glob("alerts-*.yml")} ^ FILES.keys()
    if unknown:
        raise SystemExit(f"scripts/generate_runbook_index.py and ops/prometheus/rules differ in {sorted(unknown)}")
    raise SystemExit(main(__doc__, PAGES))
