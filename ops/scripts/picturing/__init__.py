"""Pictures of the Grafana dashboards without Grafana: their JSON, a Prometheus, and a browser that draws."""
