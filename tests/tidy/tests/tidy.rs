//! The rules of the house that neither compiler nor linter can check. Each failure says which file and what to do.

#![allow(clippy::disallowed_methods, reason = "reads the repository's own files, whole")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Past this length a file has a second part that wants a name.
const FILE_LINES_MAX: usize = 600;
/// The embedded crate stays light: crates that end up in the program, itself included; macros that only run in the compiler do not count.
/// Half of them are libc, rustix and parking_lot with what they bring.
const EMBEDDED_CRATES_MAX: usize = 13;
/// What the command may weigh, in crates of its normal tree.
const COMMAND_CRATES_MAX: usize = 100;
const README_LINES_MAX: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace root exists")
}

/// Every file below `dir` with this extension, build output and version control left out.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a readable directory") {
            let path = entry.expect("a directory entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !matches!(name, "target" | ".git" | "node_modules") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn fail_if_any(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

#[test]
fn every_source_file_opens_with_its_contract_and_stays_short() {
    let mut offenders = Vec::new();
    for path in files(&root(), "rs") {
        let text = text(&path);
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            offenders.push(format!("{}: {lines} lines; past {FILE_LINES_MAX}, name its second part", shown(&path)));
        }
        if !text.starts_with("//!") {
            offenders.push(format!("{}: begin with `//!`: what it does, what bounds it, who stops it", shown(&path)));
        }
    }
    fail_if_any("source files", &offenders);
}

#[test]
fn unsafe_code_lives_only_in_files_called_sys() {
    let mut offenders = Vec::new();
    for path in files(&root(), "rs") {
        if path.file_name().is_some_and(|n| n == "sys.rs") || path.starts_with(root().join("tests")) {
            continue;
        }
        for (number, line) in text(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern", "allow(unsafe_code"]
                .iter()
                .any(|w| code.contains(w))
            {
                offenders.push(format!("{}:{}: move it to a sys.rs, with its SAFETY", shown(&path), number + 1));
            }
        }
    }
    fail_if_any("unsafe outside sys.rs", &offenders);
}

/// The normal dependency tree of one workspace crate, without features, as names.
fn tree(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--package",
            package,
            "--locked",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[test]
fn no_leaf_depends_on_a_leaf_and_the_embedded_crate_stays_light() {
    let leaves = ["plimsoll", "plimsoll-heap", "plimsoll-store"];
    for leaf in leaves {
        let tree = tree(leaf);
        for other in leaves.iter().filter(|other| **other != leaf) {
            assert!(
                !tree.contains(*other),
                "{leaf} depends on {other}: leaves exchange plain values, the root joins them"
            );
        }
        for heavy in ["tokio", "axum", "hyper", "clap", "plimsoll-cli"] {
            assert!(!tree.contains(heavy), "{leaf} depends on {heavy}");
        }
    }
    let embedded = tree("plimsoll");
    assert!(!embedded.contains("rusqlite"), "plimsoll depends on rusqlite");
    assert!(
        embedded.len() <= EMBEDDED_CRATES_MAX,
        "the embedded crate pulls {} crates (at most {EMBEDDED_CRATES_MAX}): {embedded:?}",
        embedded.len()
    );
    let command = tree("plimsoll-cli");
    assert!(
        command.len() <= COMMAND_CRATES_MAX,
        "the command pulls {} crates (at most {COMMAND_CRATES_MAX}); does the new one earn its place?",
        command.len()
    );
}

#[test]
fn the_decision_is_pure_and_mechanisms_do_not_know_the_governor() {
    let src = root().join("crates/plimsoll/src");
    let mut offenders = Vec::new();
    let mut forbid = |path: PathBuf, words: &[&str], why: &str| {
        // Tests of a file may use what the file itself may not.
        let text = text(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in words {
            if code.lines().any(|l| !l.trim_start().starts_with("//") && l.contains(word)) {
                offenders.push(format!("{}: uses {word}: {why}", shown(&path)));
            }
        }
    };
    forbid(
        src.join("governor/step.rs"),
        &["rustix", "std::fs", "std::io", "Clock", "Mutex", "Vec<", "String"],
        "step is pure",
    );
    for path in ["queue", "broadcast", "admission"].iter().flat_map(|part| files(&src.join(part), "rs")) {
        forbid(path, &["crate::governor"], "mechanisms meet the governor in plain values only");
    }
    for path in files(&src.join("governor"), "rs") {
        forbid(
            path,
            &["crate::queue", "crate::broadcast", "crate::admission"],
            "the governor does not know the mechanisms",
        );
    }
    fail_if_any("direction inside plimsoll", &offenders);
}

#[test]
fn no_test_file_is_forgotten() {
    let mut offenders = Vec::new();
    for main in files(&root(), "rs").into_iter().filter(|p| p.ends_with("tests/it/main.rs")) {
        let declared = text(&main);
        let dir = main.parent().expect("main.rs has a directory");
        for entry in std::fs::read_dir(dir).expect("a readable directory") {
            let path = entry.expect("a directory entry").path();
            let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_owned();
            let is_module =
                path.extension().is_some_and(|e| e == "rs") && stem != "main" || path.join("mod.rs").exists();
            if is_module && !declared.contains(&format!("mod {stem};")) {
                offenders.push(format!("{}: add `mod {stem};` to main.rs, or it never runs", shown(&path)));
            }
        }
    }
    fail_if_any("test files", &offenders);
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let names_in = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|w| {
                w.starts_with("plimsoll_")
                    && w.len() > "plimsoll_".len()
                    && !w.starts_with("plimsoll_store")
                    && !w.starts_with("plimsoll_cli")
            })
            .map(|w| w.trim_end_matches('_').to_owned())
            .collect()
    };
    let output = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--locked",
            "--offline",
            "--package",
            "plimsoll-cli",
            "--bin",
            "plimsoll",
            "--",
            "metrics-names",
        ])
        .current_dir(root())
        .output()
        .expect("the command runs");
    assert!(output.status.success(), "plimsoll metrics-names: {}", String::from_utf8_lossy(&output.stderr));
    let exported = names_in(&String::from_utf8_lossy(&output.stdout));
    let documented = names_in(&text(&root().join("docs/metrics.md")));
    assert!(exported.len() > 20, "only {} metrics: is the list whole?", exported.len());
    let undocumented: Vec<_> = exported.difference(&documented).cloned().collect();
    fail_if_any("exported, but not in docs/metrics.md", &undocumented);
    let gone: Vec<_> = documented.difference(&exported).cloned().collect();
    fail_if_any("in docs/metrics.md, but not exported", &gone);
    let allowed = ["_bytes", "_seconds", "_ratio", "_total", "_info", "_count", "_per_second"];
    let unitless: Vec<_> =
        exported.iter().filter(|name| !allowed.iter().any(|unit| name.ends_with(unit))).cloned().collect();
    fail_if_any(&format!("metrics whose name ends in no unit {allowed:?}"), &unitless);
}

#[test]
fn readme_is_one_page_and_its_links_and_commands_hold() {
    let readme = text(&root().join("README.md"));
    assert!(
        readme.lines().count() <= README_LINES_MAX,
        "README.md: {} lines, at most {README_LINES_MAX}",
        readme.lines().count()
    );
    for command in ["cargo run --release -- demo", "bash .ci/run"] {
        assert!(readme.contains(command), "README.md: the two commands are gone: {command}");
    }
    let help = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--locked",
            "--offline",
            "--package",
            "plimsoll-cli",
            "--bin",
            "plimsoll",
            "--",
            "--help",
        ])
        .current_dir(root())
        .output()
        .expect("the command runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let mut offenders = Vec::new();
    for line in readme.lines().filter_map(|l| l.trim().strip_prefix("plimsoll ")) {
        let verb = line.split_whitespace().next().unwrap_or_default();
        if verb.chars().all(|c| c.is_ascii_lowercase()) && !help.contains(&format!("  {verb} ")) {
            offenders.push(format!("README.md: no such command: plimsoll {verb}"));
        }
    }
    fail_if_any("commands in README.md", &offenders);
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut offenders = Vec::new();
    let mut seen: BTreeMap<PathBuf, bool> = BTreeMap::new();
    for page in files(&root(), "md") {
        let dir = page.parent().expect("a page has a directory").to_path_buf();
        for link in text(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = dir.join(target);
            let exists = *seen.entry(path.clone()).or_insert_with(|| path.exists());
            if !exists {
                offenders.push(format!("{}: {link} leads nowhere", shown(&page)));
            }
        }
    }
    fail_if_any("links", &offenders);
}

/// Tables that say which test holds a promise: each name in a last column is a test that exists.
#[test]
fn tests_that_the_docs_name_exist() {
    let mut tests = BTreeSet::new();
    for path in files(&root().join("crates"), "rs").into_iter().chain(files(&root().join("tests"), "rs")) {
        let text = text(&path);
        let names = text.split("#[test]").skip(1).filter_map(|rest| rest.split("fn ").nth(1)?.split('(').next());
        tests.extend(names.map(str::to_owned));
    }
    let mut offenders = Vec::new();
    for page in ["docs/watchdog.md", "docs/atomics.md"] {
        let text = text(&root().join(page));
        let columns = text.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.rsplit('|').nth(1));
        let names = columns.flat_map(|column| column.split('`').skip(1).step_by(2));
        let names: Vec<&str> = names.filter(|name| name.matches('_').count() >= 3 && !name.contains(' ')).collect();
        assert!(names.len() >= 6, "{page}: the table of tests is gone");
        offenders
            .extend(names.iter().filter(|name| !tests.contains(**name)).map(|name| format!("{page}: no test {name}")));
    }
    fail_if_any("tests that the docs name", &offenders);
}

#[test]
fn the_page_is_served_from_the_binary_without_a_build() {
    let ui = root().join("crates/plimsoll-cli/src/web/ui");
    for file in ["index.html", "app.js", "report.js", "style.css"] {
        let text = text(&ui.join(file));
        assert!(!text.contains("http://") || file == "index.html", "{file}: loads something from elsewhere");
        assert!(!text.contains("https://"), "{file}: loads something from elsewhere");
    }
}
