//! The token that stands for authority on the TCP port: `Authorization: Bearer TOKEN`, from a file that only its user may read.
//!
//! 16 to 256 printable characters without blanks. Compared in time that does not depend on where the first difference is.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

/// The shortest token; shorter ones can be guessed.
const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 256;

/// A token. Its value is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(Arc<str>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A token of these characters.
    ///
    /// # Errors
    /// The rule that it breaks; never the token.
    pub(crate) fn new(text: &str) -> Result<Token, String> {
        if !(BYTES_MIN..=BYTES_MAX).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("a token has {BYTES_MIN} to {BYTES_MAX} printable characters and no blanks"));
        }
        Ok(Token(text.into()))
    }

    /// The token in the file at `path`; a last newline does not belong to it.
    ///
    /// # Errors
    /// A sentence with the path: it cannot be read, others may read it, or it holds no token.
    pub(crate) fn from_file(path: &Path) -> Result<Token, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = std::fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode();
        if mode & 0o077 != 0 {
            let shown = mode & 0o777;
            return Err(format!("{}: others may read it (mode {shown:o}); chmod 600 {0}", path.display()));
        }
        let mut text = String::new();
        file.take(BYTES_MAX as u64 + 2).read_to_string(&mut text).map_err(failed)?;
        Token::new(text.trim_end_matches(['\n', '\r'])).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// Whether the value of an `Authorization` header is this token.
    pub(super) fn is_in(&self, authorization: &str) -> bool {
        let Some((scheme, given)) = authorization.split_once(' ') else { return false };
        let given = given.trim().as_bytes();
        let own = self.0.as_bytes();
        let differ = own.iter().enumerate().fold(own.len() ^ given.len(), |differ, (at, byte)| {
            differ | usize::from(byte ^ given.get(at).copied().unwrap_or(0))
        });
        scheme.eq_ignore_ascii_case("bearer") && differ == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef";

    #[test]
    fn a_header_holds_the_token_or_not() {
        let token = Token::new(TEXT).unwrap();
        for good in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef "] {
            assert!(token.is_in(good), "{good}");
        }
        for bad in [
            "",
            TEXT,
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer 0123456789abcdeg",
        ] {
            assert!(!token.is_in(bad), "{bad}");
        }
        assert!(!format!("{token:?}").contains('0'), "it is shown nowhere");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let with = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Token::from_file(&path)
        };
        assert_eq!(with(&format!("{TEXT}\n"), 0o600), Token::new(TEXT));
        assert!(with(TEXT, 0o640).unwrap_err().contains("chmod 600"));
        for bad in ["short", "", "has a blank in the middle", &"x".repeat(300)] {
            let error = with(bad, 0o600).unwrap_err();
            assert!(error.contains("printable") && (bad.is_empty() || !error.contains(bad)), "{error}");
        }
        assert!(Token::from_file(&dir.path().join("missing")).unwrap_err().contains("missing"));
    }
}
