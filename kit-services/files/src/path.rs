//! A path as a request names it.

use std::fmt;

use kit::Fault;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// Longest path the kernel takes in one call, its closing NUL left out.
const PATH_BYTES: usize = 4095;

/// What stands for itself in a path of a URL: RFC 3986's unreserved characters and the slash.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// An absolute path below the root of the service: any bytes but NUL, empty and `.` segments
/// dropped, `..` taken back as RFC 3986 (section 5.2.4) does it, so that none is left. It says
/// what was asked for and nothing about what is there: links are the kernel's to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePath {
    /// Without the leading slash; empty for the root.
    bytes: Vec<u8>,
    /// Asked with a slash at the end, which only a directory has.
    pub directory: bool,
}

impl FilePath {
    /// From the path of a URL; a slash and `%2F` are the same, and bytes that are no UTF-8 stay.
    pub fn from_url(path: &str) -> Result<Self, Fault> {
        Self::from_bytes(&percent_decode_str(path).collect::<Vec<u8>>())
    }

    /// The root itself.
    pub fn root() -> Self {
        FilePath {
            bytes: Vec::new(),
            directory: true,
        }
    }

    /// From plain text or any other bytes. A leading slash may be left out.
    pub fn from_bytes(path: &[u8]) -> Result<Self, Fault> {
        if path.contains(&0) {
            return Err(Fault::bad_request(
                "the path contains a NUL byte, which no file name can",
            ));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        let bytes = parts.join(&b'/');
        if bytes.len() > PATH_BYTES {
            return Err(Fault::bad_request(format!(
                "the path is longer than {PATH_BYTES} bytes"
            )));
        }
        Ok(FilePath {
            bytes,
            directory: path.ends_with(b"/"),
        })
    }

    /// The bytes without the leading slash; empty for the root.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_root(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The last segment; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.bytes
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default()
    }

    /// The path of the directory that holds it; the root's is the root.
    pub fn parent(&self) -> FilePath {
        let end = self
            .bytes
            .iter()
            .rposition(|byte| *byte == b'/')
            .unwrap_or(0);
        FilePath {
            bytes: self.bytes[..end].to_vec(),
            directory: true,
        }
    }

    /// The path of an entry of this directory.
    pub fn join(&self, name: &[u8]) -> FilePath {
        let mut bytes = self.bytes.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        FilePath {
            bytes,
            directory: false,
        }
    }

    /// The path with a first segment `~` replaced.
    #[must_use]
    pub fn expand(self, home: &FilePath) -> FilePath {
        match self.bytes.strip_prefix(b"~") {
            Some([]) => FilePath {
                bytes: home.bytes.clone(),
                directory: self.directory,
            },
            Some([b'/', rest @ ..]) => FilePath {
                directory: self.directory,
                ..home.join(rest)
            },
            _ => self,
        }
    }

    /// Whether the other path is this one or below it.
    pub fn holds(&self, other: &FilePath) -> bool {
        match other.bytes.strip_prefix(self.bytes.as_slice()) {
            Some(rest) => self.is_root() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        }
    }

    /// The segments from the root down.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty())
    }

    /// The path as it stands in a URL.
    pub fn href(&self) -> String {
        format!("/{}", encode(&self.bytes))
    }
}

/// The path with its leading slash; bytes that are no UTF-8 are replaced.
impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.bytes))
    }
}

/// Percent-encode the bytes of a name or a path.
pub fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_absolute_and_has_no_dots_left() {
        for (url, want) in [
            ("", "/"),
            ("%2F", "/"),
            ("etc/hostname", "/etc/hostname"),
            ("%2Fetc%2Fhostname", "/etc/hostname"),
            ("//etc///hostname", "/etc/hostname"),
            ("./etc/./hostname", "/etc/hostname"),
            ("a/../b", "/b"),
            ("../../etc/passwd", "/etc/passwd"),
            ("%2e%2e%2f%2e%2e/etc", "/etc"),
            ("a%252Fb", "/a%2Fb"),
            ("...", "/..."),
        ] {
            assert_eq!(FilePath::from_url(url).unwrap().to_string(), want, "{url}");
        }
        let home = FilePath::from_bytes(b"home/user").unwrap();
        let expand = |url| FilePath::from_url(url).unwrap().expand(&home).to_string();
        assert_eq!(
            [expand("~"), expand("~/a"), expand("~a"), expand("a/~")],
            ["/home/user", "/home/user/a", "/~a", "/a/~"]
        );
        assert!(FilePath::from_url("a%00b").is_err());
        assert!(FilePath::from_url(&"a".repeat(5000)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_survive_a_url(bytes in prop::collection::vec(1u8..=255, 0..200)) {
            let path = FilePath::from_bytes(&bytes).unwrap();
            let again = FilePath::from_url(&path.href()).unwrap();
            prop_assert_eq!(again.bytes(), path.bytes());
            prop_assert!(path.segments().all(|part| part != b".." && part != b"."));
        }
    }
}
