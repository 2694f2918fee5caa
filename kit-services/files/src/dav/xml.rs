//! Bodies of requests: a small tree, within bounds. Document types are refused, and with them
//! every entity that a body could define.

use std::fmt::Write;

use kit::Fault;
use quick_xml::NsReader;
use quick_xml::escape::{escape, unescape};
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{NamespaceResolver, ResolveResult};

/// Largest body.
pub const BODY_BYTES: usize = 256 << 10;
/// How deep elements may be in each other.
const DEPTH: usize = 32;
/// Elements in one body.
const ELEMENTS: usize = 4096;
/// The namespace of WebDAV's own elements.
pub const DAV: &str = "DAV:";

/// Namespace and local name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Name {
    pub space: String,
    pub local: String,
}

impl Name {
    pub fn dav(local: &str) -> Name {
        Name {
            space: DAV.to_owned(),
            local: local.to_owned(),
        }
    }
}

/// An element and what is in it.
#[derive(Debug)]
pub struct Element {
    pub name: Name,
    /// Its own `xml:lang`.
    pub lang: Option<String>,
    attributes: Vec<(Name, String)>,
    children: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    /// The elements directly in it.
    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The first of WebDAV's elements of this name directly in it.
    pub fn child(&self, local: &str) -> Option<&Element> {
        self.elements().find(|element| element.is(local))
    }

    /// Whether it is WebDAV's element of this name.
    pub fn is(&self, local: &str) -> bool {
        self.name.space == DAV && self.name.local == local
    }

    /// What is in it as XML that stands for itself: every element names its namespace.
    pub fn inner(&self) -> String {
        let mut text = String::new();
        for node in &self.children {
            node.write(&mut text);
        }
        text
    }
}

impl Node {
    fn write(&self, to: &mut String) {
        match self {
            Node::Text(text) => to.push_str(&escape(text.as_str())),
            Node::Element(element) => {
                open(to, &element.name);
                if let Some(lang) = &element.lang {
                    let _ = write!(to, " xml:lang=\"{}\"", escape(lang.as_str()));
                }
                for (at, (name, value)) in element.attributes.iter().enumerate() {
                    let value = escape(value.as_str());
                    if name.space.is_empty() {
                        let _ = write!(to, " {}=\"{value}\"", name.local);
                    } else {
                        let space = escape(name.space.as_str());
                        let _ = write!(
                            to,
                            " xmlns:a{at}=\"{space}\" a{at}:{}=\"{value}\"",
                            name.local
                        );
                    }
                }
                to.push('>');
                for node in &element.children {
                    node.write(to);
                }
                close(to, &element.name);
            }
        }
    }
}

/// The beginning of an element's tag, its end left open for attributes.
pub fn open(to: &mut String, name: &Name) {
    let space = escape(name.space.as_str());
    let _ = match name.space.as_str() {
        DAV => write!(to, "<D:{}", name.local),
        "" => write!(to, "<{} xmlns=\"\"", name.local),
        _ => write!(to, "<x:{} xmlns:x=\"{space}\"", name.local),
    };
}

/// The tag that ends an element.
pub fn close(to: &mut String, name: &Name) {
    let _ = match name.space.as_str() {
        DAV => write!(to, "</D:{}>", name.local),
        "" => write!(to, "</{}>", name.local),
        _ => write!(to, "</x:{}>", name.local),
    };
}

/// Read a body whose root must be this element; none where the body is empty.
pub fn parse(body: &[u8], root: &str) -> Result<Option<Element>, Fault> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let wrong = |why: &str| {
        Fault::bad_request(format!(
            "the body is not the XML that this method takes: {why}"
        ))
    };
    let text = std::str::from_utf8(body).map_err(|_| wrong("it is not UTF-8"))?;
    let mut reader = NsReader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let (mut stack, mut count, mut done) = (Vec::<Element>::new(), 0, None);
    loop {
        let event = reader
            .read_event()
            .map_err(|error| wrong(&error.to_string()))?;
        let text = match event {
            Event::Start(start) => {
                count += 1;
                if done.is_some() || count > ELEMENTS || stack.len() == DEPTH {
                    return Err(wrong(
                        "it has several roots, too many elements, or too deep ones",
                    ));
                }
                stack.push(
                    element(reader.resolver(), &start)
                        .ok_or_else(|| wrong("a name or an attribute in it is invalid"))?,
                );
                continue;
            }
            Event::End(_) => {
                let ended = stack
                    .pop()
                    .ok_or_else(|| wrong("an element ends that did not begin"))?;
                match stack.last_mut() {
                    Some(above) => above.children.push(Node::Element(ended)),
                    None => done = Some(ended),
                }
                continue;
            }
            Event::Text(text) => text.xml10_content().into_owned(),
            Event::CData(text) => text.xml10_content().into_owned(),
            Event::GeneralRef(name) => {
                let reference = format!("&{};", name.into_inner());
                // Those of XML itself and numbers; whatever else there is could only be defined by
                // a document type.
                unescape(&reference)
                    .map_err(|_| wrong("it uses an entity that XML does not define"))?
                    .into_owned()
            }
            Event::DocType(_) => return Err(wrong("document types are refused")),
            Event::Eof => break,
            Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::Empty(_) => continue,
        };
        match stack.last_mut() {
            Some(above) => above.children.push(Node::Text(text)),
            None if text.trim().is_empty() => {}
            None => return Err(wrong("there is text outside of its root")),
        }
    }
    match done {
        Some(element) if stack.is_empty() && element.is(root) => Ok(Some(element)),
        _ => Err(wrong(&format!("its root must be a whole {{DAV:}}{root}"))),
    }
}

fn element(spaces: &NamespaceResolver, start: &BytesStart<'_>) -> Option<Element> {
    let space = |found: ResolveResult<'_>| match found {
        ResolveResult::Unbound => Some(String::new()),
        // An empty name unbinds a default namespace; for a prefix it is an error of the sender.
        ResolveResult::Bound(space) => unescape(space.as_ref())
            .ok()
            .map(|space| space.into_owned()),
        ResolveResult::Unknown(_) => None,
    };
    let (found, local) = spaces.resolve_element(start.name());
    let bound = matches!(found, ResolveResult::Bound(_));
    let name = Name {
        space: space(found)?,
        local: local.as_ref().to_owned(),
    };
    let prefixed = start.name().as_ref().contains(':');
    if !is_name(&name.local) || prefixed && (!bound || name.space.is_empty()) {
        return None;
    }
    let (mut lang, mut attributes) = (None, Vec::new());
    for attribute in start.attributes() {
        let attribute = attribute.ok()?;
        let key = attribute.key.as_ref();
        let value = unescape(&attribute.value).ok()?.into_owned();
        if key == "xmlns" {
            continue;
        }
        if let Some(prefix) = key.strip_prefix("xmlns:") {
            if value.is_empty() || prefix.is_empty() {
                return None; // Namespaces in XML 1.0, section 2.2: no prefix without a name
            }
            continue;
        }
        if key == "xml:lang" {
            lang = Some(value);
            continue;
        }
        let (found, local) = spaces.resolve_attribute(attribute.key);
        let name = Name {
            space: space(found)?,
            local: local.as_ref().to_owned(),
        };
        if !is_name(&name.local) {
            return None;
        }
        attributes.push((name, value));
    }
    Some(Element {
        name,
        lang,
        attributes,
        children: Vec::new(),
    })
}

/// Whether this can stand in a document as an element and what is in it.
pub fn stands(name: &Name, inner: &str) -> bool {
    let text = format!("<D:v xmlns:D=\"DAV:\">{inner}</D:v>");
    is_name(&name.local) && matches!(parse(text.as_bytes(), "v"), Ok(Some(_)))
}

/// Whether this can be written back as a name: the reader takes more than XML does.
fn is_name(text: &str) -> bool {
    let first = |c: char| {
        c.is_alphabetic() || c == '_' || !c.is_ascii() && !c.is_whitespace() && !c.is_control()
    };
    let mut chars = text.chars();
    chars.next().is_some_and(first)
        && chars.all(|c| first(c) || c.is_ascii_digit() || matches!(c, '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_an_element_stands_for_itself() {
        let body = r#"<?xml version="1.0"?><D:propfind xmlns:D="DAV:" xmlns:q="urn:q">
            <q:a q:n="1" m="&lt;" xml:lang="en"><b xmlns="">x &amp; &#65;<![CDATA[<]]></b><D:href/></q:a></D:propfind>"#;
        let root = parse(body.as_bytes(), "propfind").unwrap().unwrap();
        let again = root.inner();
        let wrapped = format!("<D:propfind xmlns:D=\"DAV:\">{again}</D:propfind>");
        assert!(again.contains("x &amp; A&lt;"), "{again}");
        let twice = parse(wrapped.as_bytes(), "propfind").unwrap().unwrap();
        assert_eq!(twice.inner(), again);
        assert_eq!(twice.elements().next().unwrap().name.space, "urn:q");
    }

    #[test]
    fn bodies_that_attack_are_refused() {
        let nested = format!(
            "<a xmlns=\"DAV:\">{}{}</a>",
            "<b>".repeat(100),
            "</b>".repeat(100)
        );
        let many = format!("<a xmlns=\"DAV:\">{}</a>", "<b/>".repeat(ELEMENTS + 1));
        let laughs =
            r#"<!DOCTYPE a [<!ENTITY l "ha"><!ENTITY m "&l;&l;&l;">]><a xmlns="DAV:">&m;</a>"#;
        let file =
            r#"<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a xmlns="DAV:">&x;</a>"#;
        for body in [
            laughs,
            file,
            &nested,
            &many,
            "<a xmlns=\"DAV:\">&m;</a>",
            "<a xmlns=\"DAV:\">",
            "<a xmlns=\"DAV:\"/><a xmlns=\"DAV:\"/>",
            "<a/>",
            "<b xmlns=\"DAV:\"/>",
            "<a xmlns=\"DAV:\" xmlns:p=\"\"><p:b/></a>",
            "<a xmlns=\"DAV:\"><p:b/></a>",
            "<a xmlns=\"DAV:\"></b>",
            "text",
        ] {
            let refused = parse(body.as_bytes(), "a");
            assert!(refused.is_err(), "{body:.80}: {refused:?}");
        }
        assert!(parse(b"<a xmlns=\"DAV:\">\xff</a>", "a").is_err());
        assert!(parse(b" \n", "a").unwrap().is_none());
    }
}
