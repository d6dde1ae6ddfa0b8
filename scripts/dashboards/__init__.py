"""The panels of the Grafana dashboards, and how they become JSON."""
