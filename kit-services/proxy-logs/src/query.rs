//! Which entries are looked for, and looking for them.

use std::collections::VecDeque;
use std::io;

use kit::Fault;

use crate::Scope;
use crate::entry::{Head, Kind, Level, LogEntry, Source};
use crate::log::View;

/// What an entry has to be. Empty, it is anything.
#[derive(Debug, Default, Clone)]
pub struct Filter {
    /// A project or container was named that is not the log's own.
    nothing: bool,
    levels: Option<Vec<Level>>,
    kind: Option<Kind>,
    source: Option<Source>,
    method: Option<String>,
    service: Option<String>,
    status: Option<(u16, u16)>,
    search: Option<String>,
    /// Ids from here on, and below there.
    after: u64,
    before: Option<u64>,
}

impl Filter {
    /// Whether it admits everything.
    pub fn is_open(&self) -> bool {
        !self.nothing
            && self.levels.is_none()
            && self.kind.is_none()
            && self.source.is_none()
            && self.method.is_none()
            && self.service.is_none()
            && self.status.is_none()
            && self.search.is_none()
            && self.after == 0
            && self.before.is_none()
    }

    /// Only this project and container: all of a log, or nothing of it.
    #[must_use]
    pub fn within(
        mut self,
        scope: Scope,
        project: Option<&str>,
        container: Option<&str>,
    ) -> Filter {
        let other = |named: Option<&str>, own: crate::Key| {
            named.is_some_and(|named| !named.is_empty() && named != own.to_string())
        };
        self.nothing = other(project, scope.project) || other(container, scope.container);
        self
    }

    /// Only these levels, with commas between them.
    pub fn levels(mut self, text: Option<&str>) -> Result<Filter, Fault> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(self);
        };
        let mut levels = Vec::new();
        for word in text.split(',') {
            levels.push(match word.trim() {
                "debug" => Level::Debug,
                "info" => Level::Info,
                "warn" => Level::Warn,
                "error" => Level::Error,
                other => {
                    return Err(wrong(
                        "level",
                        format!(
                            "there is no level `{}`; use debug, info, warn or error",
                            clip(other)
                        ),
                    ));
                }
            });
        }
        self.levels = Some(levels);
        Ok(self)
    }

    #[must_use]
    pub fn kind(mut self, kind: Option<Kind>) -> Filter {
        self.kind = kind;
        self
    }

    #[must_use]
    pub fn source(mut self, source: Option<Source>) -> Filter {
        self.source = source;
        self
    }

    #[must_use]
    pub fn method(mut self, method: Option<&str>) -> Filter {
        self.method = some(method);
        self
    }

    /// A slug, with or without its index.
    #[must_use]
    pub fn service(mut self, service: Option<&str>) -> Filter {
        self.service = some(service);
        self
    }

    /// A status, or a class of them: `404`, `5xx`.
    pub fn status(mut self, status: Option<&str>) -> Result<Filter, Fault> {
        let Some(text) = status.filter(|text| !text.is_empty()) else {
            return Ok(self);
        };
        let class = text
            .strip_suffix("xx")
            .and_then(|digit| digit.parse::<u16>().ok())
            .filter(|digit| (1..=5).contains(digit))
            .map(|digit| (digit * 100, digit * 100 + 99));
        let exact = text
            .parse::<u16>()
            .ok()
            .filter(|status| (100..600).contains(status))
            .map(|status| (status, status));
        self.status = class.or(exact);
        if self.status.is_none() {
            return Err(wrong(
                "status",
                format!(
                    "`{}` is no status; use one as 404, or a class as 5xx",
                    clip(text)
                ),
            ));
        }
        Ok(self)
    }

    /// Text somewhere in the address, the client's address, the method or the trace id, in any
    /// case.
    #[must_use]
    pub fn search(mut self, text: Option<&str>) -> Filter {
        self.search = text
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_lowercase);
        self
    }

    #[must_use]
    pub fn after(mut self, id: Option<u64>) -> Filter {
        self.after = id.unwrap_or(0);
        self
    }

    #[must_use]
    pub fn before(mut self, id: Option<u64>) -> Filter {
        self.before = id;
        self
    }

    /// Whether this is looked for.
    pub fn admits(&self, head: &Head<'_>) -> bool {
        let text = |wanted: &Option<String>, has: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(has))
        };
        !self.nothing
            && head.id > self.after
            && self.before.is_none_or(|before| head.id < before)
            && self
                .levels
                .as_ref()
                .is_none_or(|levels| levels.contains(&head.level))
            && self.kind.is_none_or(|kind| kind == head.kind)
            && self.source.is_none_or(|source| source == head.source)
            && text(&self.method, head.method.as_deref().unwrap_or_default())
            && self
                .service
                .as_ref()
                .is_none_or(|wanted| is_service(wanted, &head.service_name))
            && self.status.is_none_or(|(least, most)| {
                head.status
                    .is_some_and(|status| (least..=most).contains(&status))
            })
            && self
                .search
                .as_ref()
                .is_none_or(|wanted| contains(wanted, head))
    }

    /// The entry of a line, if it is looked for.
    pub fn take(&self, line: &[u8]) -> Option<LogEntry> {
        let admitted = self.is_open() || Head::of(line).is_some_and(|head| self.admits(&head));
        if admitted {
            serde_json::from_slice(line).ok()
        } else {
            None
        }
    }
}

/// `http` is every port of that protocol.
fn is_service(wanted: &str, has: &str) -> bool {
    wanted.eq_ignore_ascii_case(has)
        || has
            .split_once('-')
            .is_some_and(|(slug, _)| wanted.eq_ignore_ascii_case(slug))
}

fn contains(wanted: &str, head: &Head<'_>) -> bool {
    let parts = [
        head.url.as_deref(),
        head.client_ip.as_deref(),
        head.method.as_deref(),
        Some(&*head.trace_id),
        Some(&*head.service_name),
    ];
    parts
        .into_iter()
        .flatten()
        .any(|part| part.to_lowercase().contains(wanted))
}

fn some(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A bad parameter, named.
pub fn wrong(name: &str, message: String) -> Fault {
    Fault::bad_request(format!("invalid parameter `{name}`: {message}"))
        .field(format!("/{name}"), message)
        .code("VALIDATION_ERROR")
}

fn clip(text: &str) -> String {
    text.chars().take(32).collect()
}

/// A part of what was found.
#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<LogEntry>,
    /// All that were found.
    pub total: u64,
}

/// The entries that a filter admits, from the `offset`th on, the oldest first.
pub fn page(view: &View, filter: &Filter, offset: u64, limit: usize) -> io::Result<Page> {
    let mut page = Page::default();
    view.each(|line| {
        let Some(head) = Head::of(line).filter(|head| filter.admits(head)) else {
            return;
        };
        drop(head);
        if page.total >= offset
            && page.entries.len() < limit
            && let Ok(entry) = serde_json::from_slice(line)
        {
            page.entries.push(entry);
        }
        page.total += 1;
    })?;
    Ok(page)
}

/// The first entries that a filter admits, the oldest first.
pub fn first(view: &View, filter: &Filter, limit: usize) -> io::Result<Vec<LogEntry>> {
    let mut found = Vec::new();
    // What is asked for is usually new: then the disk is not looked at.
    let (newest, all) = view.newest();
    if all || filter.after >= view.passed() {
        let mut lines: Vec<_> = newest.collect();
        lines.reverse();
        found.extend(
            lines
                .into_iter()
                .filter_map(|line| filter.take(line))
                .take(limit),
        );
        return Ok(found);
    }
    view.each(|line| {
        if found.len() < limit
            && let Some(entry) = filter.take(line)
        {
            found.push(entry);
        }
    })?;
    Ok(found)
}

/// The last entries that a filter admits, the oldest first.
pub fn last(view: &View, filter: &Filter, limit: usize) -> io::Result<Vec<LogEntry>> {
    let (newest, all) = view.newest();
    let mut found: Vec<LogEntry> = newest
        .filter_map(|line| filter.take(line))
        .take(limit)
        .collect();
    if all || found.len() == limit {
        found.reverse();
        return Ok(found);
    }
    let mut found: VecDeque<LogEntry> = VecDeque::new();
    view.each(|line| {
        if let Some(entry) = filter.take(line) {
            found.push_back(entry);
            if found.len() > limit {
                found.pop_front();
            }
        }
    })?;
    Ok(found.into())
}
