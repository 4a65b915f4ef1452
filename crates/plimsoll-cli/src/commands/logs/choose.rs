//! Which name is meant: the one given, or the only one there is.

use std::io;
use std::path::Path;

use crate::exit::Failure;
use crate::layout::Layout;

/// The most names that an error lists.
const LISTED: usize = 20;

/// The files of `name` below `dir`, or those of the only name there is.
///
/// # Errors
/// A usage error that lists the names there are: no such name, several to choose from, or none at all.
pub(super) fn choose(dir: &Path, name: Option<&str>) -> Result<Layout, Failure> {
    if let Some(name) = name {
        let layout = Layout::new(dir, name).map_err(Failure::usage)?;
        if layout.home().is_dir() {
            return Ok(layout);
        }
    }
    let names = match Layout::names(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::new(format!("cannot look into {}: {error}", dir.display()))),
    };
    match (name, names.as_slice()) {
        (_, []) => Err(Failure::usage(format!("nothing has run yet with the state directory {}", dir.display()))
            .hint("start something: plimsoll run --name web -- CMD; or give its --dir")),
        (None, [only]) => Layout::new(dir, only).map_err(Failure::usage),
        (None, several) => {
            let first = &several[0];
            Err(Failure::usage(format!("whose logs? There are {}", list(several)))
                .hint(format!("plimsoll logs {first}")))
        }
        (Some(name), names) => Err(Failure::usage(format!("there is no {name:?} in {}", dir.display())).hint(format!(
            "there {} {}",
            if names.len() == 1 { "is" } else { "are" },
            list(names)
        ))),
    }
}

/// The files of `name` below `dir`, or those of every name there is.
///
/// # Errors
/// As [`choose`].
pub(super) fn choose_all(dir: &Path, name: Option<&str>) -> Result<Vec<Layout>, Failure> {
    match (name, Layout::names(dir)) {
        (None, Ok(names)) if names.len() > 1 => {
            names.iter().map(|name| Layout::new(dir, name).map_err(Failure::usage)).collect()
        }
        _ => choose(dir, name).map(|only| vec![only]),
    }
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], name: Option<&str>) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        choose(dir.path(), name)
            .map(|layout| layout.name().to_owned())
            .map_err(|failure| failure.to_string().replace(&dir.path().display().to_string(), "DIR"))
    }

    #[test]
    fn one_name_is_picked_and_several_are_listed() {
        assert_eq!(chosen(&["web"], None), Ok("web".to_owned()));
        assert_eq!(chosen(&["web", "db"], Some("db")), Ok("db".to_owned()));
        let several = chosen(&["web", "db"], None).unwrap_err();
        assert_eq!(several, "whose logs? There are db, web\n  hint: plimsoll logs db");
    }

    #[test]
    fn all_are_chosen_where_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(choose_all(dir.path(), None).is_err());
        for name in ["web", "db"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let names =
            |name| choose_all(dir.path(), name).unwrap().iter().map(|l| l.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(None), ["db", "web"]);
        assert_eq!(names(Some("web")), ["web"]);
    }

    #[test]
    fn an_unknown_name_is_told_with_those_that_exist() {
        let unknown = chosen(&["web", "db"], Some("wbe")).unwrap_err();
        assert_eq!(unknown, "there is no \"wbe\" in DIR\n  hint: there are db, web");
        assert!(chosen(&["web"], Some("../etc")).unwrap_err().contains("expected 1 to 64"));
        assert!(chosen(&[], Some("web")).unwrap_err().starts_with("nothing has run yet"));
        let many: Vec<String> = (0..30).map(|i| format!("n{i:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(chosen(&many, None).unwrap_err().contains("n19 and 10 more"));
    }

    #[test]
    fn a_state_directory_that_is_not_there_is_no_crash() {
        let nowhere = choose(Path::new("/nonexistent/plimsoll"), None).unwrap_err().to_string();
        assert!(nowhere.starts_with("nothing has run yet with the state directory /nonexistent/plimsoll"), "{nowhere}");
    }
}
