//! How long the log of a program's output is kept: the flags, and what they mean for the store. The disk that it may take in all is a
//! flag of its own; these bound it further. Whatever comes first holds: the oldest lines go, whole chunks of them, and are counted.

use std::time::Duration;

use plimsoll::units;
use plimsoll_store::Settings;

/// The shortest age and the smallest sum that make sense.
const LEAST_AGE: Duration = Duration::from_secs(1);
const LEAST_SUM_BYTES: u64 = 1 << 20;

/// Flags of `plimsoll run`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct KeepArgs {
    /// Keep log lines so long (12h, 30d); what is older goes [default: no bound]
    #[arg(long, value_name = "DUR", value_parser = age)]
    log_age: Option<Duration>,

    /// Keep so many log lines, the newest ones [default: no bound]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    log_lines: Option<u64>,

    /// Disk that the logs of all programs in --dir may take together: each supervisor cuts its own, the quiet keep all, the
    /// loud the same [default: no bound]
    #[arg(long, value_name = "SIZE", value_parser = sum)]
    log_sum: Option<u64>,

    /// Leave so much disk free: with less, the oldest log lines go. At most a quarter of a small disk [default: new lines wait, then are
    /// dropped and counted; old ones stay]
    #[arg(long, value_name = "SIZE", value_parser = units_size)]
    log_free: Option<u64>,
}

/// What they say; plain values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    age: Option<Duration>,
    lines: Option<u64>,
    sum_bytes: Option<u64>,
    free_bytes: Option<u64>,
}

impl KeepArgs {
    pub(crate) fn understood(&self) -> Keep {
        Keep { age: self.log_age, lines: self.log_lines, sum_bytes: self.log_sum, free_bytes: self.log_free }
    }
}

impl Keep {
    /// The store's settings with these bounds.
    pub(crate) fn settings(self, settings: Settings) -> Settings {
        Settings {
            retain_age: self.age,
            retain_lines: self.lines,
            retain_sum_bytes: self.sum_bytes,
            free_disk_bytes: self.free_bytes.unwrap_or(0),
            ..settings
        }
    }
}

fn units_size(text: &str) -> Result<u64, String> {
    units::parse_size(text).map_err(|error| error.to_string())
}

fn sum(text: &str) -> Result<u64, String> {
    let bytes = units_size(text)?;
    if bytes < LEAST_SUM_BYTES { Err(format!("at least {}", units::size(LEAST_SUM_BYTES))) } else { Ok(bytes) }
}

fn age(text: &str) -> Result<Duration, String> {
    let age = units::parse_duration(text).map_err(|error| error.to_string())?;
    if age < LEAST_AGE { Err("at least 1 s".to_owned()) } else { Ok(age) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: KeepArgs,
    }

    fn settings(line: &str) -> Result<Settings, String> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let keep = Line::try_parse_from(words).map_err(|error| error.to_string())?.args.understood();
        Ok(keep.settings(Settings::new("/d", "/r", "web")))
    }

    #[test]
    fn flags_become_bounds_of_the_store() {
        let none = settings("").unwrap();
        assert_eq!((none.retain_age, none.retain_lines, none.retain_sum_bytes), (None, None, None));
        assert_eq!(none.free_disk_bytes, 0);
        let all = settings("--log-age 30d --log-lines 1000000 --log-sum 20G --log-free 5G").unwrap();
        assert_eq!(all.retain_age, Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(
            (all.retain_lines, all.retain_sum_bytes, all.free_disk_bytes),
            (Some(1_000_000), Some(20 << 30), 5 << 30)
        );
        assert!(all.validate().is_ok());
        for (line, said) in [
            ("--log-age 10ms", "at least 1 s"),
            ("--log-age forever", "forever"),
            ("--log-lines 0", "0 is not in 1.."),
            ("--log-sum 1000", "1000"),
            ("--log-sum 1K", "at least 1.0 MiB"),
        ] {
            let error = settings(line).expect_err(line);
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
