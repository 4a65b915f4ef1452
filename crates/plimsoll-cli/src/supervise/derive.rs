//! The child's runtime limits, derived from the one budget: five variables, a fixed table (`docs/runtime-limits.md`).
//!
//! Pure: environment and budget in, changes out. What the operator set wins; where a variable holds several options the
//! derived one is appended unless that option, or a rival of it, is there; an empty value opts out (the child does not
//! see the variable); `--no-derive` opts out of all. Each runtime gets the whole budget less what is not its heap:
//! a tree of several runtimes shares the budget, which Plimsoll cannot divide for it and therefore says.

use plimsoll::units;

const MIB: u64 = 1 << 20;
/// A heap below this is not worth a limit: the collector would run all the time.
pub(crate) const MIN_HEAP_BYTES: u64 = 32 * MIB;
/// A heap below this works but may collect garbage much of the time: a warning.
pub(crate) const SMALL_HEAP_BYTES: u64 = 64 * MIB;

/// One row of the table.
struct Row {
    name: &'static str,
    /// The heap's share of budget − fixed, in percent; 0: a constant.
    percent: u64,
    /// What the runtime needs beside its heap whatever the budget.
    fixed_bytes: u64,
    /// How the value is written, from the heap's bytes.
    write: fn(u64) -> String,
    /// Whether the variable is a list of options, to which ours is appended.
    list: bool,
    /// Options or variables of the operator's that make ours wrong.
    rivals: &'static [&'static str],
    /// Other variables that, when they hold one of `rivals` (or anything, for `!NAME`), win as well.
    elsewhere: &'static [&'static str],
    /// The reason, in a few words.
    why: &'static str,
}

const TABLE: [Row; 5] = [
    Row {
        name: "GOMEMLIMIT",
        percent: 90,
        fixed_bytes: 0,
        write: |bytes| format!("{}MiB", bytes / MIB),
        list: false,
        rivals: &[],
        elsewhere: &[],
        why: "Go counts all that its runtime maps, so only what C code allocates is left out",
    },
    Row {
        name: "NODE_OPTIONS",
        percent: 80,
        fixed_bytes: 64 * MIB,
        write: |bytes| format!("--max-old-space-size={}", bytes / MIB),
        list: true,
        rivals: &["--max-old-space-size", "--max_old_space_size", "--max-heap-size", "--max_heap_size"],
        elsewhere: &[],
        why: "old space only: young generation, code and buffers come on top",
    },
    Row {
        name: "JAVA_TOOL_OPTIONS",
        percent: 70,
        fixed_bytes: 64 * MIB,
        write: |bytes| format!("-Xmx{}m", bytes / MIB),
        list: true,
        rivals: &["-Xmx", "-XX:MaxHeapSize", "-XX:MaxRAM"],
        elsewhere: &["JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"],
        why: "heap only: metaspace, code cache and thread stacks come on top",
    },
    Row {
        name: "DOTNET_GCHeapHardLimit",
        percent: 75,
        fixed_bytes: 32 * MIB,
        write: |bytes| format!("{bytes:X}"),
        list: false,
        rivals: &[],
        elsewhere: &["!DOTNET_GCHeapHardLimitPercent", "!COMPlus_GCHeapHardLimit", "!COMPlus_GCHeapHardLimitPercent"],
        why: "hexadecimal bytes; native memory and stacks come on top",
    },
    Row {
        name: "MALLOC_ARENA_MAX",
        percent: 0,
        fixed_bytes: 0,
        write: |_| "2".to_owned(),
        list: false,
        rivals: &[],
        elsewhere: &[],
        why: "glibc: fewer arenas, less memory held back by fragmentation",
    },
];

/// What becomes of one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Derived {
    /// Its name.
    pub(crate) name: &'static str,
    /// What the child gets.
    pub(crate) change: Change,
    /// Why, for people.
    pub(crate) note: String,
}

/// How the child's environment differs from ours in one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Set to this.
    Set(String),
    /// Left as the operator has it.
    Keep,
    /// Removed: the operator set it to nothing, which opts out.
    Remove,
    /// Not set, because the budget is too small for a heap limit.
    Skip,
}

/// Derives every variable. `env` looks one up in the operator's environment. Second: warnings, one line each.
pub(crate) fn derive(budget_bytes: u64, env: impl Fn(&str) -> Option<String>) -> (Vec<Derived>, Vec<String>) {
    let mut derived = Vec::with_capacity(TABLE.len() + 1);
    let mut warnings = Vec::new();
    let mut small = Vec::new();
    for row in &TABLE {
        let heap = budget_bytes.saturating_sub(row.fixed_bytes) / 100 * row.percent;
        let one = one(row, heap, &env);
        if row.percent > 0 {
            match &one.change {
                Change::Set(_) if heap < SMALL_HEAP_BYTES => small.push(row.name),
                Change::Skip => small.push(row.name),
                Change::Set(_) | Change::Keep | Change::Remove => {}
            }
        }
        derived.push(one);
    }
    derived.push(unbuffered(&env));
    if !small.is_empty() {
        warnings.push(format!(
            "a budget of {} leaves less than {} of heap under {}: a garbage-collected program may spend most of its time collecting",
            units::size(budget_bytes),
            units::size(SMALL_HEAP_BYTES),
            small.join(", ")
        ));
    }
    (derived, warnings)
}

/// The one that is no limit.
pub(crate) const UNBUFFERED: &str = "PYTHONUNBUFFERED";

/// `PYTHONUNBUFFERED=1`: stdout is a pipe here, and a line that sits in the program's buffer is in no log.
pub(crate) fn unbuffered(env: impl Fn(&str) -> Option<String>) -> Derived {
    let (change, note) = match env(UNBUFFERED) {
        Some(value) if value.is_empty() => (Change::Remove, "opted out by an empty value".to_owned()),
        Some(_) => (Change::Keep, "already set".to_owned()),
        None => (Change::Set("1".to_owned()), "stdout is a pipe: lines reach the log as they are printed".to_owned()),
    };
    Derived { name: UNBUFFERED, change, note }
}

fn one(row: &Row, heap_bytes: u64, env: &impl Fn(&str) -> Option<String>) -> Derived {
    let derived = |change, note: String| Derived { name: row.name, change, note };
    let set = env(row.name);
    if set.as_deref() == Some("") {
        return derived(Change::Remove, "opted out by an empty value".to_owned());
    }
    if let Some(text) = &set {
        if !row.list {
            return derived(Change::Keep, format!("already set to {text}"));
        }
        if let Some(rival) = rival_in(text, row.rivals) {
            return derived(Change::Keep, format!("already holds {rival}"));
        }
    }
    for other in row.elsewhere {
        let (name, any) = other.strip_prefix('!').map_or((*other, false), |name| (name, true));
        match env(name) {
            Some(text) if any && !text.is_empty() => return derived(Change::Keep, format!("{name} is already set")),
            Some(text) => {
                if let Some(rival) = rival_in(&text, row.rivals) {
                    return derived(Change::Keep, format!("{name} already holds {rival}"));
                }
            }
            None => {}
        }
    }
    if row.percent > 0 && heap_bytes < MIN_HEAP_BYTES {
        return derived(Change::Skip, format!("the budget leaves less than {} of heap", units::size(MIN_HEAP_BYTES)));
    }
    let value = (row.write)(heap_bytes);
    match set {
        Some(text) => derived(Change::Set(format!("{text} {value}")), format!("appended; {}", row.why)),
        None => derived(Change::Set(value), row.why.to_owned()),
    }
}

/// The first word of `text` that begins with one of `rivals`.
fn rival_in<'a>(text: &'a str, rivals: &[&str]) -> Option<&'a str> {
    text.split([' ', '\t', '\n', '"', '\'']).find(|word| rivals.iter().any(|rival| word.starts_with(rival)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(budget: u64, env: &[(&str, &str)]) -> Vec<(&'static str, Change)> {
        let lookup = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        derive(budget, lookup).0.into_iter().map(|d| (d.name, d.change)).collect()
    }

    fn one_of(budget: u64, env: &[(&str, &str)], name: &str) -> Change {
        with(budget, env).into_iter().find(|(n, _)| *n == name).expect("in the table").1
    }

    fn set(value: &str) -> Change {
        Change::Set(value.to_owned())
    }

    #[test]
    fn golden_values_for_each_variable() {
        // The same numbers stand in docs/runtime-limits.md.
        let table: [(u64, [&str; 5]); 3] = [
            (300 * MIB, ["270MiB", "--max-old-space-size=188", "-Xmx165m", "C8FFFCD", "2"]),
            (1024 * MIB, ["921MiB", "--max-old-space-size=767", "-Xmx671m", "2E7FFFBB", "2"]),
            (4096 * MIB, ["3686MiB", "--max-old-space-size=3225", "-Xmx2822m", "BE7FFFD0", "2"]),
        ];
        for (budget, values) in table {
            let got = with(budget, &[]);
            let expected: Vec<(&str, Change)> =
                TABLE.iter().map(|row| row.name).zip(values.map(set)).chain([("PYTHONUNBUFFERED", set("1"))]).collect();
            assert_eq!(got, expected, "budget {budget}");
            let page = include_str!("../../../../docs/runtime-limits.md");
            for value in values {
                assert!(
                    page.contains(&format!("`{value}`")),
                    "docs/runtime-limits.md lacks {value} of a budget of {budget}"
                );
            }
        }
    }

    #[test]
    fn what_is_set_wins() {
        let keep = [
            ("GOMEMLIMIT", "1GiB"),
            ("DOTNET_GCHeapHardLimit", "10000000"),
            ("MALLOC_ARENA_MAX", "8"),
            ("PYTHONUNBUFFERED", "0"),
            ("NODE_OPTIONS", "--enable-source-maps --max-old-space-size=100"),
            ("NODE_OPTIONS", "--max_old_space_size=100"),
            ("NODE_OPTIONS", "--max-old-space-size-percentage=40"),
            ("JAVA_TOOL_OPTIONS", "-Xss1m -Xmx99m"),
            ("JAVA_TOOL_OPTIONS", "-XX:MaxRAMPercentage=50"),
        ];
        for (name, value) in keep {
            assert_eq!(one_of(300 * MIB, &[(name, value)], name), Change::Keep, "{name}={value}");
        }
        for (elsewhere, value, name) in [
            ("_JAVA_OPTIONS", "-Xmx64m", "JAVA_TOOL_OPTIONS"),
            ("JDK_JAVA_OPTIONS", "-XX:MaxRAMPercentage=70.0", "JAVA_TOOL_OPTIONS"),
            ("DOTNET_GCHeapHardLimitPercent", "4B", "DOTNET_GCHeapHardLimit"),
            ("COMPlus_GCHeapHardLimit", "C800000", "DOTNET_GCHeapHardLimit"),
        ] {
            assert_eq!(one_of(300 * MIB, &[(elsewhere, value)], name), Change::Keep, "{elsewhere}={value}");
        }
    }

    #[test]
    fn other_options_are_kept_and_ours_is_appended() {
        assert_eq!(
            one_of(300 * MIB, &[("NODE_OPTIONS", "--enable-source-maps")], "NODE_OPTIONS"),
            set("--enable-source-maps --max-old-space-size=188")
        );
        assert_eq!(
            one_of(
                300 * MIB,
                &[("JAVA_TOOL_OPTIONS", "-Dfile.encoding=UTF-8"), ("_JAVA_OPTIONS", "-Xss1m")],
                "JAVA_TOOL_OPTIONS"
            ),
            set("-Dfile.encoding=UTF-8 -Xmx165m")
        );
    }

    #[test]
    fn an_empty_value_opts_out_of_that_one_only() {
        for row in &TABLE {
            let got = with(300 * MIB, &[(row.name, "")]);
            for (name, change) in got {
                assert_eq!(change == Change::Remove, name == row.name, "{name}");
            }
        }
    }

    #[test]
    fn a_heap_too_small_is_not_derived_and_said() {
        let (derived, warnings) = derive(80 * MIB, |_| None);
        let skipped: Vec<&str> = derived.iter().filter(|d| d.change == Change::Skip).map(|d| d.name).collect();
        assert_eq!(skipped, ["NODE_OPTIONS", "JAVA_TOOL_OPTIONS"]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("NODE_OPTIONS") && warnings[0].contains("DOTNET_GCHeapHardLimit"), "{warnings:?}");
        assert!(derive(300 * MIB, |_| None).1.is_empty());
    }
}
