//! The results as SVG.

use crate::results::Row;
use crate::scenario::Scenario;
use crate::servers::OURS;
use crate::stats::Summary;
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::fmt::Display;

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 1000;
const PANEL_HEIGHT: u32 = 260;
const FONT: &str = "sans-serif";
const OUR_COLOUR: RGBColor = RGBColor(0xd9, 0x5f, 0x02);
const THEIR_COLOUR: RGBColor = RGBColor(0x75, 0x8f, 0xa8);
/// Of lines, which must be told apart.
const COLOURS: [RGBColor; 6] = [
    OUR_COLOUR,
    RGBColor(0x1b, 0x6c, 0xa8),
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0x7b, 0x3f, 0x9e),
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0xb8, 0x86, 0x0b),
];

/// A panel per scenario with a bar per server: the median rate, and a line
/// from the least to the most. An idle server has its memory as bar.
pub(crate) fn bars(rows: &[Row]) -> Result<String> {
    let blocks: Vec<&[Row]> = rows.chunk_by(|a, b| a.scenario == b.scenario).collect();
    let panel_rows = blocks.len().div_ceil(2).max(1);
    draw(panel_rows, |root| {
        for (panel, block) in root.split_evenly((panel_rows, 2)).iter().zip(&blocks) {
            bar_panel(panel, block).map_err(plain)?;
        }
        Ok(())
    })
}

/// Processor time per echo, memory per connection and rate over the number of
/// connections, a line per server.
pub(crate) fn scaling(rows: &[Row]) -> Result<String> {
    type Value = fn(&Row) -> Option<Summary>;
    let panels: [(&str, f64, Value); 3] = [
        ("server CPU, us/echo", 1.0, |row| row.cost),
        ("resident KiB per connection", 1024.0, |row| row.memory),
        ("echoes/s", 1.0, |row| row.rate),
    ];
    draw(panels.len() * 2, |root| {
        let areas = root.split_evenly((panels.len(), 1));
        for (panel, (title, unit, value)) in areas.iter().zip(panels) {
            let lines = lines(rows, unit, value);
            line_panel(panel, title, &lines).map_err(plain)?;
        }
        Ok(())
    })
}

fn draw(panel_rows: usize, fill: impl FnOnce(&Panel<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let height = PANEL_HEIGHT * u32::try_from(panel_rows)?;
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(plain)?;
        fill(&root)?;
        root.present().map_err(plain)?;
    }
    Ok(svg)
}

/// plotters' errors borrow the drawing.
fn plain(error: impl Display) -> anyhow::Error {
    anyhow!("plot: {error}")
}

fn colour(server: &str) -> RGBColor {
    if server == OURS {
        OUR_COLOUR
    } else {
        THEIR_COLOUR
    }
}

fn bar_title(scenario: Scenario) -> String {
    match scenario {
        Scenario::Idle(_) => format!("{scenario}: resident bytes per connection"),
        _ => format!("{scenario}: {}", scenario.rate_unit()),
    }
}

fn bar_panel(panel: &Panel<'_>, rows: &[Row]) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let title = bar_title(rows[0].scenario);
    // Places count from below.
    let rows: Vec<&Row> = rows.iter().rev().collect();
    let bars: Vec<Option<Summary>> = rows.iter().map(|row| row.rate.or(row.memory)).collect();
    let most = bars.iter().flatten().map(|bar| bar.max).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .caption(title, (FONT, 16))
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(96)
        .build_cartesian_2d(0.0..most * 1.05, (0..rows.len() - 1).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|value| format!("{value:.0}"))
        .x_labels(5)
        .y_labels(rows.len())
        .y_label_formatter(&|place| match place {
            SegmentValue::CenterOf(place) => rows.get(*place).map_or("", |row| row.server).into(),
            _ => String::new(),
        })
        .draw()?;
    for (place, (row, bar)) in rows.iter().zip(bars).enumerate() {
        if let Some(bar) = bar {
            let colour = colour(row.server);
            let (below, above) = (SegmentValue::Exact(place), SegmentValue::Exact(place + 1));
            let corners = [(0.0, below), (bar.median, above)];
            let mut rectangle = Rectangle::new(corners, colour.filled());
            rectangle.set_margin(2, 2, 0, 0);
            chart.draw_series([rectangle])?;
            let spread = [bar.min, bar.max].map(|end| (end, SegmentValue::CenterOf(place)));
            chart.draw_series([PathElement::new(spread, BLACK)])?;
        }
    }
    Ok(())
}

/// A server and its points.
type Line = (&'static str, Vec<(f64, f64)>);

fn lines(rows: &[Row], unit: f64, value: fn(&Row) -> Option<Summary>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for row in rows {
        let Some(summary) = value(row) else { continue };
        let point = (row.scenario.connections() as f64, summary.median / unit);
        match lines.iter_mut().find(|(name, _)| *name == row.server) {
            Some((_, points)) => points.push(point),
            None => lines.push((row.server, vec![point])),
        }
    }
    lines
}

fn line_panel(
    panel: &Panel<'_>,
    title: &str,
    lines: &[Line],
) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let right = points().map(|point| point.0).fold(10.0, f64::max);
    let top = points().map(|point| point.1).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .caption(title, (FONT, 16))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d((1.0..right * 1.1).log_scale(), 0.0..top * 1.05)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("connections")
        .x_label_formatter(&|count| format!("{count:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for (index, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()].stroke_width(2);
        let series = LineSeries::new(points.iter().copied(), colour).point_size(3);
        chart
            .draw_series(series)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{rows, tests::entry};

    #[test]
    fn both_plots_name_their_servers() {
        let entries = [entry(1, "lastecho", 1500, 0), entry(1, "go", 1000, 0)];
        let rows = rows(&[Scenario::Echo(50)], &entries);
        for svg in [bars(&rows).unwrap(), scaling(&rows).unwrap()] {
            assert!(svg.starts_with("<svg") && svg.contains("</svg>"));
            for text in ["lastecho", "go", "echoes/s"] {
                assert!(svg.contains(text), "{text}");
            }
        }
        assert!(bars(&[]).is_ok());
    }
}
