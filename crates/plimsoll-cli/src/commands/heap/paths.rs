//! `plimsoll heap paths`: what keeps objects alive. Of a class, up to 10,000 objects are followed, evenly chosen, and joined by path.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use plimsoll_heap::graph::paths::{Paths, Step};
use plimsoll_heap::graph::{Graph, Node, classes, owners, paths};
use serde_json::{Value, json};

use super::input::Input;
use super::table::Table;
use crate::exit::Failure;
use crate::say;
use crate::view::text::{Line, Tone};
use crate::view::words;

/// Objects of a class that are followed.
const MAX_FOLLOWED: usize = 10_000;

/// Arguments of `plimsoll heap paths`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A V8 heap snapshot; `-` for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Objects of this class, as `heap top` names it [default: the largest owners]
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    class: Option<String>,

    /// The object of this id
    #[arg(long, value_name = "ID")]
    id: Option<u64>,

    /// Paths that are shown
    #[arg(long, short = 'n', value_name = "PATHS", default_value_t = 5)]
    limit: usize,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Objects that are reached the same way.
struct Group {
    key: String,
    count: usize,
    /// One of them, and how it is reached.
    node: Node,
    steps: Vec<Step>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let graph = Input::open(&args.file)?.graph()?;
    let (nodes, all) = chosen(args, &graph)?;
    let groups = grouped(&graph, &nodes);
    if args.json {
        let paths: Vec<Value> = groups.iter().take(args.limit).map(|group| as_json(&graph, group)).collect();
        super::print_json(&json!({ "objects": all, "followed": nodes.len(), "paths": paths }))?;
    } else {
        say::lines(&told(args, &graph, &groups, nodes.len(), all))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What to follow, and of how many that is a choice.
fn chosen(args: &Args, graph: &Graph) -> Result<(Vec<Node>, usize), Failure> {
    if let Some(id) = args.id {
        let node = graph.by_id(id).ok_or_else(|| Failure::new(format!("no object has the id {id}")))?;
        return Ok((vec![node], 1));
    }
    if let Some(class) = &args.class {
        let found = classes::instances(graph, class);
        if found.is_empty() {
            return Err(
                Failure::new(format!("no object is of class {class:?}")).hint("plimsoll heap top names the classes")
            );
        }
        let all = found.len();
        let every = all.div_ceil(MAX_FOLLOWED);
        return Ok((found.into_iter().step_by(every).collect(), all));
    }
    let mut found = owners::find(graph, owners::least_bytes(graph.total_bytes()));
    found.sort_by_key(|node| std::cmp::Reverse(graph.retained_bytes(*node)));
    found.truncate(args.limit);
    let all = found.len();
    Ok((found, all))
}

/// The most frequent path first; among equals the one that retains most.
fn grouped(graph: &Graph, nodes: &[Node]) -> Vec<Group> {
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (node, steps) in nodes.iter().zip(Paths::to(graph, nodes).steps(graph, nodes)) {
        let key = paths::key(graph, &steps, *node);
        let at = *index.entry(key.clone()).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Group { key, count: 0, node: *node, steps });
        }
        groups[at].count += 1;
    }
    groups.sort_by_key(|group| std::cmp::Reverse((group.count, graph.retained_bytes(group.node))));
    groups
}

fn told(args: &Args, graph: &Graph, groups: &[Group], followed: usize, all: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(class) = &args.class {
        let choice = if followed < all {
            format!(", {} of them followed", words::count(followed as u64))
        } else {
            String::new()
        };
        lines.push(
            Line::new()
                .add(Tone::Strong, class)
                .plain(format!(": {}{choice}", words::plural(all as u64, "object", "objects"))),
        );
        lines.push(Line::new());
    }
    for group in groups.iter().take(args.limit) {
        let share = 100.0 * group.count as f64 / followed.max(1) as f64;
        let title = if args.class.is_some() { format!("{share:.1} %  ") } else { String::new() };
        lines.push(Line::new().add(Tone::Note, title).add(Tone::Strong, &group.key));
        lines.extend(way(graph, group));
        lines.push(Line::new());
    }
    let left = groups.len().saturating_sub(args.limit);
    if left > 0 {
        lines.push(Line::new().add(Tone::Dim, format!("{} more", words::plural(left as u64, "path", "paths"))));
    }
    lines
}

/// A path from the root downwards, a step a line.
fn way(graph: &Graph, group: &Group) -> Vec<Line> {
    let mut table = Table::new(&["RETAINS", "OWN", "ID", "STEP"]);
    let row = |step: &Step, depth: usize| {
        let indent = "  ".repeat(depth.min(20));
        vec![
            (Tone::Plain, words::size(graph.retained_bytes(step.to))),
            (Tone::Dim, words::size(graph.shallow_bytes(step.to))),
            (Tone::Dim, format!("@{}", graph.id(step.to))),
            (Tone::Plain, format!("{indent}{}  {}", step.words, paths::title(graph, step.to))),
        ]
    };
    let (steps, most) = (&group.steps, paths::MAX_STEPS);
    let left_out = steps.len().saturating_sub(most);
    for (depth, step) in steps.iter().enumerate() {
        if left_out > 0 && depth == most / 2 {
            let note = format!("… {} left out", words::plural(left_out as u64, "step", "steps"));
            table.row(vec![
                (Tone::Dim, String::new()),
                (Tone::Dim, String::new()),
                (Tone::Dim, String::new()),
                (Tone::Dim, note),
            ]);
        }
        if left_out == 0 || !(most / 2..most / 2 + left_out).contains(&depth) {
            table.row(row(step, if depth < most / 2 { depth } else { depth - left_out }));
        }
    }
    table.lines()
}

fn as_json(graph: &Graph, group: &Group) -> Value {
    let step = |step: &Step| {
        json!({
            "step": step.words,
            "id": graph.id(step.to),
            "what": paths::title(graph, step.to),
            "bytes": graph.shallow_bytes(step.to),
            "retained_bytes": graph.retained_bytes(step.to),
        })
    };
    json!({ "key": group.key, "objects": group.count, "steps": group.steps.iter().map(step).collect::<Vec<_>>() })
}
