//! The course of each law in one cell, as SVG: use over the first two minutes, one panel a law. The same on every machine.

use std::fmt::Write as _;
use std::time::Duration;

use crate::LAWS;
use crate::run::{Cell, run_watched};

const SHOWN: f64 = 120.0;
const MOST: f64 = 120.0;
const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 96.0;
const LEFT: f64 = 120.0;
const GAP: f64 = 18.0;

/// The cell that is shown: late by a second, lazy by a second, a tenth of the limit a second, a third that cannot be evicted.
fn cell() -> Cell {
    Cell { delay: Duration::from_secs(1), lazy: Duration::from_secs(1), inflow: 0.10, base: 0.30 }
}

/// The plot.
pub(crate) fn svg() -> String {
    let height = LAWS.len() as f64 * (HEIGHT + GAP) + 52.0;
    let mut svg = String::new();
    let mut add = |text: String| svg.push_str(&text);
    add(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"8\" y=\"18\">{}: use in % of the limit, {SHOWN} s</text>\n",
        LEFT + WIDTH + 16.0,
        cell()
    ));
    for (i, (name, law)) in LAWS.iter().enumerate() {
        let top = 34.0 + i as f64 * (HEIGHT + GAP);
        let y = |points: f64| top + HEIGHT * (1.0 - points.min(MOST) / MOST);
        let mut path = String::new();
        let outcome = run_watched(law().as_mut(), &cell(), &mut |at, used| {
            if at.as_secs_f64() <= SHOWN {
                let x = LEFT + at.as_secs_f64() / SHOWN * WIDTH;
                write!(path, "{}{x:.1} {:.1}", if path.is_empty() { "M" } else { "L" }, y(used)).expect("to a string");
            }
        });
        let colour = if i == 0 { "#0a6" } else { "#777" };
        let (right, limit) = (LEFT + WIDTH, y(100.0));
        let text = top + 20.0;
        add(format!(
            "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#f6f6f6\"/>\n\
             <path d=\"M{LEFT} {limit:.1}H{right}\" stroke=\"#c00\" stroke-dasharray=\"4 3\"/>\n\
             <path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n\
             <text x=\"8\" y=\"{text}\" font-weight=\"bold\">{name}</text>\n\
             <text x=\"8\" y=\"{:.0}\">peak {:.1}</text>\n<text x=\"8\" y=\"{:.0}\">swing {:.1}</text>\n<text x=\"8\" y=\"{:.0}\">store {:.1}</text>\n",
            text + 17.0,
            outcome.peak,
            text + 34.0,
            outcome.swing,
            text + 51.0,
            outcome.store
        ));
    }
    add("</svg>\n".to_owned());
    svg
}
