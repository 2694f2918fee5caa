//! The header `If` (RFC 4918, section 10.4).

use kit::Fault;

/// Longest header that is read.
const BYTES: usize = 8 << 10;
/// Conditions in one header.
const MOST: usize = 64;

/// One list of conditions, all of which must hold, about one resource.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    /// The URL it is about; none for that of the request.
    pub tag: Option<String>,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Condition {
    pub not: bool,
    pub state: State,
}

#[derive(Debug, PartialEq, Eq)]
pub enum State {
    Token(String),
    Etag(String),
}

/// Read the header.
pub fn parse(text: &str) -> Result<Vec<List>, Fault> {
    read(text).ok_or_else(|| {
        Fault::bad_request("the header If is malformed; it is lists such as (<token> [\"etag\"])")
    })
}

fn read(text: &str) -> Option<Vec<List>> {
    if text.len() > BYTES {
        return None;
    }
    let (mut lists, mut tag, mut count) = (Vec::new(), None, 0);
    let mut tag_used = true;
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('<') {
            // A tag before the first list, and then lists with tags only.
            if !tag_used || tag.is_none() && !lists.is_empty() {
                return None;
            }
            let (url, after) = after.split_once('>')?;
            (tag, tag_used) = (Some(url.to_owned()), false);
            rest = after.trim_start();
            continue;
        }
        rest = rest.strip_prefix('(')?.trim_start();
        let mut conditions = Vec::new();
        loop {
            if let Some(after) = rest.strip_prefix(')') {
                rest = after.trim_start();
                break;
            }
            let not = rest
                .get(..3)
                .is_some_and(|word| word.eq_ignore_ascii_case("not"));
            if not {
                rest = rest[3..].trim_start();
            }
            let (state, after) = if let Some(after) = rest.strip_prefix('<') {
                let (token, after) = after.split_once('>')?;
                (State::Token(token.to_owned()), after)
            } else {
                let (etag, after) = rest.strip_prefix('[')?.split_once(']')?;
                (State::Etag(etag.trim().to_owned()), after)
            };
            count += 1;
            if count > MOST {
                return None;
            }
            conditions.push(Condition { not, state });
            rest = after.trim_start();
        }
        if conditions.is_empty() {
            return None;
        }
        tag_used = true;
        lists.push(List {
            tag: tag.clone(),
            conditions,
        });
    }
    (tag_used && !lists.is_empty()).then_some(lists)
}

/// The tokens it names, whatever is said about them.
pub fn tokens(lists: &[List]) -> impl Iterator<Item = &str> {
    let conditions = lists.iter().flat_map(|list| &list.conditions);
    conditions.filter_map(|condition| match &condition.state {
        State::Token(token) => Some(token.as_str()),
        State::Etag(_) => None,
    })
}

/// Whether one of the lists holds. `holds` tells about one state of one resource.
pub fn weigh(lists: &[List], holds: impl Fn(Option<&str>, &State) -> bool) -> bool {
    lists.iter().any(|list| {
        let about = list.tag.as_deref();
        let mut conditions = list.conditions.iter();
        conditions.all(|one| holds(about, &one.state) != one.not)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_weighed() {
        let holds = |tag: Option<&str>, state: &State| match state {
            State::Token(token) => token == "t" && tag != Some("/other"),
            State::Etag(etag) => etag == "\"e\"",
        };
        for (text, want) in [
            ("(<t>)", true),
            ("(<t> [\"e\"])", true),
            ("(<t> [\"f\"])", false),
            ("(<u>) (<t>)", true),
            ("(Not <DAV:no-lock>)", true),
            ("(not <t>)", false),
            ("</other> (<t>)", false),
            ("</other> (<t>) </x>(<t>)(<u>)", true),
        ] {
            assert_eq!(weigh(&parse(text).unwrap(), holds), want, "{text}");
        }
        let many = "(<a>)".repeat(MOST + 1);
        let long = format!("(<{}>)", "a".repeat(BYTES));
        for text in [
            "",
            "()",
            "(<t>",
            "<t>",
            "(<t>) x",
            "(<t>) </x> (<t>)",
            "</a> </b> (<t>)",
            "(t)",
            "(Not)",
            "\u{e9}(",
            &many,
            &long,
        ] {
            assert!(parse(text).is_err(), "{text:.40}");
        }
    }
}
