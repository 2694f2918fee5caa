//! Finding files by name and by content.

use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use globset::{GlobBuilder, GlobMatcher};
use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{
    BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkContextKind, SinkMatch,
};
use kit::Fault;
use rustix::fs::{FileType, OFlags};
use schemars::JsonSchema;
use serde::Serialize;

use crate::Files;
use crate::entry::{PathItem, lossy, size};
use crate::fault::failed;
use crate::jail::{Jailed, Links, list};
use crate::listing::{DirectoryListing, Order, PAGE, Sort, compare};
use crate::path::FilePath;
use crate::walk::{Bounds, Flow, walk};
use crate::work::Wanted;

/// Longest pattern.
const PATTERN_BYTES: usize = 4 << 10;
/// Memory that a compiled regular expression may take.
const REGEX_BYTES: usize = 8 << 20;
/// Memory for one line; files with longer lines are passed over.
const LINE_BYTES: usize = 8 << 20;
/// How much of a line is in a reply.
const SHOWN_BYTES: usize = 4 << 10;
/// Text in one reply, all matches and their context together.
const REPLY_BYTES: usize = 8 << 20;
/// Longest query for names.
const QUERY_BYTES: usize = 512;
/// How far a search for names goes.
const NAMES: Bounds = Bounds {
    depth: 100,
    entries: 500_000,
    time: Duration::from_secs(30),
    ignore: false,
};

/// What a glob pattern found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GlobResults {
    /// The directory that was searched.
    pub path: String,
    pub pattern: String,
    pub entries: Vec<GlobEntry>,
    /// Entries in this reply.
    pub count: usize,
    /// Entries that were looked at.
    pub total_scanned: usize,
    /// There may be more: a bound ended the search, or there were more than asked for.
    pub truncated: bool,
    pub duration_ms: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct GlobEntry {
    /// Path below the directory that was searched.
    pub name: String,
    pub is_dir: bool,
    /// Size in bytes; 0 for a directory.
    pub size: u64,
    /// Time of the last change, in milliseconds since 1970.
    pub modified: Option<u64>,
}

/// What a search through contents found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct GrepResults {
    /// The file or directory that was searched.
    pub path: String,
    pub pattern: String,
    pub matches: Vec<GrepMatch>,
    /// Matches in this reply.
    pub total_matches: usize,
    pub total_files_searched: usize,
    pub total_files_matched: usize,
    /// There may be more: a bound ended the search.
    pub truncated: bool,
    pub duration_ms: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub struct GrepMatch {
    /// Absolute path of the file.
    pub path: String,
    /// Counted from 1.
    pub line_number: u64,
    /// Byte at which the match begins in its line, counted from 1.
    pub column_byte: u64,
    /// The line, without its end; a very long one is cut.
    pub line: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context_before: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub context_after: Vec<String>,
}

/// A search for names.
#[derive(Debug)]
pub struct Glob {
    pub pattern: String,
    pub results: usize,
    pub bounds: Bounds,
    pub sort: Sort,
    pub order: Order,
}

/// A search for content.
#[derive(Debug)]
pub struct Grep {
    pub pattern: String,
    pub ignore_case: bool,
    pub fixed_string: bool,
    /// Only files that fit; a pattern without a slash is for the name alone.
    pub glob: Option<String>,
    pub context: usize,
    pub per_file: u64,
    pub matches: usize,
    pub file_bytes: u64,
    pub bounds: Bounds,
}

impl Glob {
    pub fn run(
        &self,
        files: &Files,
        path: &FilePath,
        wanted: &Wanted,
    ) -> Result<GlobResults, Fault> {
        let began = Instant::now();
        let matcher = glob(&self.pattern)?;
        let found = files
            .root
            .find(path, Links::Follow)
            .map_err(failed("read", path))?;
        let start = list(&found).map_err(failed("read", path))?;
        let mut items: Vec<PathItem> = Vec::new();
        let mut more = false;
        let seen = walk(start, self.bounds, wanted, |entry| {
            if matcher.is_match(std::ffi::OsStr::from_bytes(entry.path)) {
                items.push(PathItem::new(entry.path, entry.stat, None));
                // Keep what will be shown, and not much beside it.
                if items.len() >= 2 * self.results.max(1) {
                    items.sort_unstable_by(|a, b| compare(a, b, self.sort, self.order));
                    items.truncate(self.results);
                    more = true;
                }
            }
            Flow::Continue
        });
        wanted.check()?;
        items.sort_unstable_by(|a, b| compare(a, b, self.sort, self.order));
        more |= items.len() > self.results;
        items.truncate(self.results);
        let entries: Vec<_> = items
            .into_iter()
            .map(|item| GlobEntry {
                is_dir: item.is_directory(),
                name: item.name,
                size: item.size,
                modified: Some(item.mtime),
            })
            .collect();
        Ok(GlobResults {
            path: path.to_string(),
            pattern: self.pattern.clone(),
            count: entries.len(),
            entries,
            total_scanned: seen.entries,
            truncated: more || seen.stopped,
            duration_ms: elapsed(began),
        })
    }
}

impl Grep {
    pub fn run(
        &self,
        files: &Files,
        path: &FilePath,
        wanted: &Wanted,
    ) -> Result<GrepResults, Fault> {
        let began = Instant::now();
        let matcher = self.matcher()?;
        let only = self.glob.as_deref().map(|pattern| {
            let whole_path = pattern.contains('/');
            glob(pattern).map(|glob| (glob, whole_path))
        });
        let only = only.transpose()?;
        let found = files
            .root
            .find(path, Links::Follow)
            .map_err(failed("read", path))?;
        let mut search = Search {
            grep: self,
            matcher,
            searcher: SearcherBuilder::new()
                .line_number(true)
                .before_context(self.context)
                .after_context(self.context)
                .binary_detection(BinaryDetection::quit(0))
                .heap_limit(Some(LINE_BYTES))
                .build(),
            results: GrepResults {
                path: path.to_string(),
                pattern: self.pattern.clone(),
                matches: Vec::new(),
                total_matches: 0,
                total_files_searched: 0,
                total_files_matched: 0,
                truncated: false,
                duration_ms: 0,
            },
            shown: 0,
            until: began + self.bounds.time,
            wanted,
        };
        if found.is_directory() {
            let start = list(&found).map_err(failed("read", path))?;
            let seen = walk(start, self.bounds, wanted, |entry| {
                let fits = only.as_ref().is_none_or(|(glob, whole_path)| {
                    let text = if *whole_path { entry.path } else { entry.name };
                    glob.is_match(std::ffi::OsStr::from_bytes(text))
                });
                if entry.kind() == FileType::RegularFile
                    && fits
                    && let Some(file) = entry.hold()
                {
                    search.file(&file, &path.join(entry.path));
                }
                if search.full() {
                    Flow::Stop
                } else {
                    Flow::Continue
                }
            });
            search.results.truncated |= seen.stopped;
        } else {
            // Says so where it is special or cannot be opened.
            found.open(OFlags::RDONLY).map_err(failed("read", path))?;
            search.file(&found, path);
        }
        wanted.check()?;
        let mut results = search.results;
        results.total_matches = results.matches.len();
        results.duration_ms = elapsed(began);
        Ok(results)
    }

    fn matcher(&self) -> Result<RegexMatcher, Fault> {
        bounded(&self.pattern)?;
        RegexMatcherBuilder::new()
            .case_insensitive(self.ignore_case)
            .fixed_strings(self.fixed_string)
            .line_terminator(Some(b'\n'))
            .size_limit(REGEX_BYTES)
            .dfa_size_limit(REGEX_BYTES)
            .build(&self.pattern)
            .map_err(|error| Fault::bad_request(format!("the pattern cannot be used: {error}")))
    }
}

struct Search<'a> {
    grep: &'a Grep,
    matcher: RegexMatcher,
    searcher: Searcher,
    results: GrepResults,
    /// Bytes of text in the results.
    shown: usize,
    until: Instant,
    wanted: &'a Wanted,
}

impl Search<'_> {
    fn full(&self) -> bool {
        self.results.truncated
    }

    fn file(&mut self, file: &Jailed, path: &FilePath) {
        if size(&file.stat) > self.grep.file_bytes {
            return;
        }
        let Ok(open) = file.open(OFlags::RDONLY) else {
            return;
        };
        self.results.total_files_searched += 1;
        let before = self.results.matches.len();
        let mut sink = Collect {
            path: path.to_string(),
            matcher: &self.matcher,
            grep: self.grep,
            results: &mut self.results,
            shown: &mut self.shown,
            until: self.until,
            wanted: self.wanted,
            before: Vec::new(),
            here: 0,
        };
        // A file that cannot be read to its end, or has no lines, gives what it gave.
        let _ = self.searcher.search_file(&self.matcher, &open, &mut sink);
        if self.results.matches.len() > before {
            self.results.total_files_matched += 1;
        }
    }
}

struct Collect<'a> {
    path: String,
    matcher: &'a RegexMatcher,
    grep: &'a Grep,
    results: &'a mut GrepResults,
    shown: &'a mut usize,
    until: Instant,
    wanted: &'a Wanted,
    before: Vec<String>,
    /// Matches in this file.
    here: u64,
}

impl Collect<'_> {
    fn show(&mut self, line: &[u8]) -> String {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = lossy(&line[..line.len().min(SHOWN_BYTES)]);
        *self.shown += text.len();
        text
    }
}

impl Sink for Collect<'_> {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> Result<bool, std::io::Error> {
        let over = self.results.matches.len() >= self.grep.matches
            || *self.shown > REPLY_BYTES
            || self.wanted.gone()
            || Instant::now() > self.until;
        if over {
            self.results.truncated = true;
            return Ok(false);
        }
        if self.here == self.grep.per_file {
            return Ok(false);
        }
        self.here += 1;
        let column = self
            .matcher
            .find(found.bytes())
            .ok()
            .flatten()
            .map_or(0, |at| at.start());
        let line = self.show(found.bytes());
        self.results.matches.push(GrepMatch {
            path: self.path.clone(),
            line_number: found.line_number().unwrap_or(0),
            column_byte: column as u64 + 1,
            line,
            context_before: std::mem::take(&mut self.before),
            context_after: Vec::new(),
        });
        Ok(true)
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> Result<bool, std::io::Error> {
        let line = self.show(context.bytes());
        match context.kind() {
            SinkContextKind::Before => self.before.push(line),
            SinkContextKind::After => {
                if let Some(last) = self.results.matches.last_mut() {
                    last.context_after.push(line);
                }
            }
            SinkContextKind::Other => {}
        }
        Ok(true)
    }

    fn context_break(&mut self, _: &Searcher) -> Result<bool, std::io::Error> {
        self.before.clear();
        Ok(true)
    }
}

/// Names below a directory that contain a text, whatever its case.
pub fn by_name(
    files: &Files,
    path: &FilePath,
    query: &str,
    wanted: &Wanted,
) -> Result<DirectoryListing, Fault> {
    let lower = query.to_lowercase();
    if query.len() > QUERY_BYTES || lower.len() > QUERY_BYTES {
        return Err(Fault::bad_request(format!(
            "the query is longer than {QUERY_BYTES} bytes"
        )));
    }
    let found = files
        .root
        .find(path, Links::Follow)
        .map_err(failed("read", path))?;
    let start = list(&found).map_err(failed("read", path))?;
    let mut items = Vec::new();
    let seen = walk(start, NAMES, wanted, |entry| {
        if items.len() == PAGE {
            return Flow::Stop;
        }
        if lossy(entry.name).to_lowercase().contains(&lower) {
            let target = if entry.kind() == FileType::Symlink {
                files.root.find(&path.join(entry.path), Links::Follow).ok()
            } else {
                None
            };
            items.push(PathItem::new(
                entry.path,
                entry.stat,
                target.as_ref().map(|target| &target.stat),
            ));
        }
        Flow::Continue
    });
    wanted.check()?;
    let mut listing = DirectoryListing::new(path, items);
    listing.truncated = seen.stopped;
    Ok(listing)
}

fn glob(pattern: &str) -> Result<GlobMatcher, Fault> {
    bounded(pattern)?;
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| Fault::bad_request(format!("the pattern cannot be used: {error}")))
}

fn bounded(pattern: &str) -> Result<(), Fault> {
    if pattern.is_empty() || pattern.len() > PATTERN_BYTES {
        return Err(Fault::bad_request(format!(
            "a pattern has 1 to {PATTERN_BYTES} bytes"
        )));
    }
    Ok(())
}

fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
