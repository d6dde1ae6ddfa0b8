"""Grafana's dashboard JSON of the pages, by Grafana's own library of its schema.

Written for Grafana 10 and newer: nothing here is younger than that, and older dashboards are read for years.
"""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as grafana
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.panels import COLOURS, GRID_WIDTH, Page, Panel, Variable

SCHEMA_VERSION = 39
DATASOURCE = grafana.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Events are counted in steps of at least this; shorter ones hold a scrape or none.
EVENT_STEP = "1m"


class StartsAnnotation(grafana.AnnotationQuery):
    """Marks at the times that a series has as its values. The library's model lacks the three fields of it."""

    def to_json(self) -> dict[str, object]:
        """All fields."""
        return {
            **super().to_json(),
            "useValueForTime": True,
            "titleFormat": f"{self.name}: {{{{instance}}}}",
            "step": "15s",
        }


def document(page: Page) -> str:
    """The JSON of a dashboard."""
    shown = grafana.Dashboard(
        uid=page.uid,
        title=page.title,
        description=page.about,
        tags=["tenure"],
        schema_version=SCHEMA_VERSION,
        version=1,
        editable=True,
        graph_tooltip=grafana.DashboardCursorSync.CROSSHAIR,
        refresh="15s",
        time=grafana.DashboardDashboardTime(from_val="now-3h", to="now"),
        timezone="browser",
        links=_links(),
        templating=grafana.DashboardDashboardTemplating(
            list_val=[_datasource(), *map(_variable, page.variables), _docs()]
        ),
        annotations=grafana.AnnotationContainer(list_val=_annotations()),
        panels=_placed(page),
    )
    return json.dumps(shown, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _placed(page: Page) -> list[grafana.Panel | grafana.RowPanel]:
    placed: list[grafana.Panel | grafana.RowPanel] = []
    top = 0
    for title, members in page.rows.items():
        place = grafana.GridPos(h=1, w=GRID_WIDTH, x=0, y=top)
        placed.append(grafana.RowPanel(id_val=len(placed) + 1, title=title, grid_pos=place, panels=[]))
        top, left, height = top + 1, 0, 0
        for panel in members:
            if left + panel.width > GRID_WIDTH:
                left, top, height = 0, top + height, 0
            shown = _panel(panel)
            shown.id_val = len(placed) + 1
            shown.grid_pos = grafana.GridPos(h=panel.height, w=panel.width, x=left, y=top)
            placed.append(shown)
            left, height = left + panel.width, max(height, panel.height)
        top += height
    return placed


def _panel(panel: Panel) -> grafana.Panel:
    builders = {
        "timeseries": _timeseries,
        "stat": _stat,
        "bargauge": _bargauge,
        "table": _table,
        "state-timeline": _timeline,
    }
    shown = builders[panel.kind](panel).build()
    shown.title, shown.description, shown.datasource = panel.title, panel.description, DATASOURCE
    shown.targets = [_target(panel, index).build() for index in range(len(panel.queries))]
    shown.interval = EVENT_STEP if panel.bars else None
    config = shown.field_config or grafana.FieldConfigSource()
    defaults = config.defaults
    defaults.unit, defaults.min_val, defaults.max_val = panel.unit, panel.minimum, panel.maximum
    defaults.decimals, defaults.no_value = panel.decimals, panel.none
    steps = [grafana.Threshold(value=value, color=colour) for value, colour in panel.limits]
    defaults.thresholds = grafana.ThresholdsConfig(mode=grafana.ThresholdsMode.ABSOLUTE, steps=steps)
    by_value = panel.kind in ("stat", "state-timeline", "table") or (panel.kind == "bargauge" and len(steps) > 1)
    mode = grafana.FieldColorModeId.THRESHOLDS if by_value else grafana.FieldColorModeId.PALETTE_CLASSIC
    defaults.color = grafana.FieldColor(mode=mode)
    if panel.links:
        defaults.links = [_link(title, url) for title, url in panel.links]
    config.overrides = [*config.overrides, *_coloured(panel)]
    shown.field_config = config
    return shown


def _target(panel: Panel, index: int) -> prometheus.Dataquery:
    expression, legend = panel.queries[index]
    query = prometheus.Dataquery().ref_id(chr(ord("A") + index)).datasource(DATASOURCE)
    query = query.expr(expression).legend_format(legend or "__auto")
    if panel.kind == "table":
        query = query.format(PromQueryFormat.TABLE)
    return query.instant() if panel.instant else query.range()


def _timeseries(panel: Panel) -> Builder[grafana.Panel]:
    built = timeseries.Panel().show_points(common_models.VisibilityMode.NEVER).line_width(1)
    # A gap is shown as one: nobody was heard then.
    built = built.span_nulls(False)
    stacking = common_models.StackingMode.NORMAL if panel.stacked else common_models.StackingMode.NONE
    built = built.stacking(common.StackingConfig().mode(stacking).group("A"))
    if panel.bars:
        built = built.draw_style(common_models.GraphDrawStyle.BARS).fill_opacity(80).line_width(0)
    else:
        built = built.fill_opacity(40 if panel.stacked else 0)
    if len(panel.limits) > 1:
        dashed = common_models.GraphThresholdsStyleMode.DASHED
        built = built.thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
    legend = common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM)
    legend = legend.display_mode(common_models.LegendDisplayMode.LIST).calcs([])
    tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    return built.legend(legend).tooltip(tooltip.sort(common_models.SortOrder.DESCENDING))


def _stat(panel: Panel) -> Builder[grafana.Panel]:
    mode = common_models.BigValueGraphMode
    built = stat.Panel().graph_mode(mode.AREA if panel.trend else mode.NONE).reduce_options(_last())
    built = built.color_mode(common_models.BigValueColorMode.VALUE)
    return built.text_mode(common_models.BigValueTextMode.VALUE)


def _bargauge(panel: Panel) -> Builder[grafana.Panel]:
    built = bargauge.Panel().display_mode(common_models.BarGaugeDisplayMode.BASIC).reduce_options(_last())
    built = built.orientation(common_models.VizOrientation.HORIZONTAL).show_unfilled(True)
    return built.value_mode(common_models.BarGaugeValueMode.TEXT)


def _table(panel: Panel) -> Builder[grafana.Panel]:
    shown = list(panel.columns)
    keep = grafana.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": shown}})
    order = {name: index for index, name in enumerate(shown)}
    organize = {"indexByName": order, "renameByName": dict(panel.columns), "excludeByName": {}}
    built = table.Panel().show_header(True).cell_height(common_models.TableCellHeight.SM)
    return built.with_transformation(keep).with_transformation(
        grafana.DataTransformerConfig(id_val="organize", options=organize)
    )


def _timeline(panel: Panel) -> Builder[grafana.Panel]:
    built = statetimeline.Panel().show_value(common_models.VisibilityMode.NEVER).merge_values(True)
    built = built.row_height(0.8).fill_opacity(80).line_width(0)
    legend = common.VizLegendOptions().show_legend(False).placement(common_models.LegendPlacement.BOTTOM)
    return built.legend(legend.display_mode(common_models.LegendDisplayMode.LIST).calcs([]))


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def _coloured(panel: Panel) -> list[grafana.DashboardFieldConfigSourceOverrides]:
    """Fixed colours for the names that have one."""
    if panel.kind not in ("timeseries", "bargauge"):
        return []
    names: dict[str, str] = {}
    for _, legend in panel.queries:
        if legend in COLOURS[""]:
            names[legend] = COLOURS[""][legend]
        elif legend.startswith("{{"):
            names |= COLOURS.get(legend.strip("{}"), {})
    return [
        grafana.DashboardFieldConfigSourceOverrides(
            matcher=grafana.MatcherConfig(id_val="byName", options=name),
            properties=[grafana.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})],
        )
        for name, colour in names.items()
    ]


def _link(title: str, url: str, **more: Any) -> grafana.DashboardLink:
    return grafana.DashboardLink(
        title=title, type_val=grafana.DashboardLinkType.LINK, url=url, icon="doc", target_blank=True, **more
    )


def _links() -> list[grafana.DashboardLink]:
    """To the other dashboards, in the same time and with the same choices; and to the pages."""
    others = grafana.DashboardLink(
        title="Tenure",
        type_val=grafana.DashboardLinkType.DASHBOARDS,
        tags=["tenure"],
        include_vars=True,
        keep_time=True,
    )
    return [
        others,
        _link("How to read these", "${docs}/docs/dashboards.md", tooltip="What each panel is for"),
        _link("Runbooks", "${docs}/ops/runbooks/README.md", tooltip="What to do about each alert"),
        _link("Operations", "${docs}/docs/operations.md", tooltip="Restarts, backups, sizing"),
    ]


def _annotations() -> list[grafana.AnnotationQuery]:
    """When processes were started: most that looks strange begins there."""
    return [
        StartsAnnotation(
            name, DATASOURCE, True, False, colour, expr=f'process_start_time_seconds{{job="{job}"}} * 1000'
        )
        for name, job, colour in (
            ("Master started", "tenure-master", "purple"),
            ("Worker started", "tenure-worker", "blue"),
        )
    ]


def _datasource() -> grafana.VariableModel:
    return grafana.VariableModel(
        type_val=grafana.VariableType.DATASOURCE,
        name="datasource",
        label="Data source",
        query="prometheus",
        refresh=grafana.VariableRefresh.ON_DASHBOARD_LOAD,
    )


def _docs() -> grafana.VariableModel:
    """Where the checkout's pages are served; the compose file lets Grafana itself do it."""
    where = "/public/tenure"
    return grafana.VariableModel(
        type_val=grafana.VariableType.TEXTBOX,
        name="docs",
        label="Docs at",
        description="Where docs/ and ops/runbooks/ are served: this Grafana, or the repository's page in your forge.",
        query=where,
        current=grafana.VariableOption(selected=True, text=where, value=where),
    )


def _variable(variable: Variable) -> grafana.VariableModel:
    every = grafana.VariableOption(selected=True, text=["All"], value=["$__all"])
    return grafana.VariableModel(
        type_val=grafana.VariableType.QUERY,
        name=variable.name,
        label=variable.label,
        datasource=DATASOURCE,
        query={"query": variable.query, "refId": f"Variable-{variable.name}"},
        refresh=grafana.VariableRefresh.ON_TIME_RANGE_CHANGED,
        sort=grafana.VariableSort.NATURAL_ASC,
        multi=variable.several,
        include_all=variable.several,
        all_value=".*" if variable.several else None,
        current=every if variable.several else None,
    )
