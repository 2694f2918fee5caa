//! Keys and mouse events as terminals send them (xterm's control sequences).

use schemars::JsonSchema;
use serde::Deserialize;
use vt100::{MouseProtocolEncoding, MouseProtocolMode};

/// Keys with a name; every single character is a key too.
const NAMED: &[(&str, Key)] = &[
    ("enter", Key::Bytes("\r")),
    ("return", Key::Bytes("\r")),
    ("tab", Key::Bytes("\t")),
    ("escape", Key::Bytes("\u{1b}")),
    ("esc", Key::Bytes("\u{1b}")),
    ("space", Key::Bytes(" ")),
    ("backspace", Key::Bytes("\u{7f}")),
    ("arrow_up", Key::Cursor('A')),
    ("arrow_down", Key::Cursor('B')),
    ("arrow_right", Key::Cursor('C')),
    ("arrow_left", Key::Cursor('D')),
    ("up", Key::Cursor('A')),
    ("down", Key::Cursor('B')),
    ("right", Key::Cursor('C')),
    ("left", Key::Cursor('D')),
    ("home", Key::Cursor('H')),
    ("end", Key::Cursor('F')),
    ("insert", Key::Editing(2)),
    ("delete", Key::Editing(3)),
    ("page_up", Key::Editing(5)),
    ("page_down", Key::Editing(6)),
    ("pageup", Key::Editing(5)),
    ("pagedown", Key::Editing(6)),
    ("f1", Key::Function('P')),
    ("f2", Key::Function('Q')),
    ("f3", Key::Function('R')),
    ("f4", Key::Function('S')),
    ("f5", Key::Editing(15)),
    ("f6", Key::Editing(17)),
    ("f7", Key::Editing(18)),
    ("f8", Key::Editing(19)),
    ("f9", Key::Editing(20)),
    ("f10", Key::Editing(21)),
    ("f11", Key::Editing(23)),
    ("f12", Key::Editing(24)),
];

/// How a key is sent.
#[derive(Clone, Copy)]
enum Key {
    Bytes(&'static str),
    /// `CSI x`, or `SS3 x` where the program asked for application cursor keys.
    Cursor(char),
    /// `SS3 x`.
    Function(char),
    /// `CSI n ~`.
    Editing(u8),
}

#[derive(Clone, Copy, Default)]
struct Modifiers {
    shift: bool,
    alt: bool,
    ctrl: bool,
}

impl Modifiers {
    fn take(&mut self, word: &str) -> bool {
        match word {
            "shift" => self.shift = true,
            "alt" | "meta" | "option" => self.alt = true,
            "ctrl" | "control" => self.ctrl = true,
            _ => return false,
        }
        true
    }

    /// As a parameter of a control sequence; 1 is none.
    fn parameter(self) -> u8 {
        1 + u8::from(self.shift) + 2 * u8::from(self.alt) + 4 * u8::from(self.ctrl)
    }
}

/// The names of keys, and how modifiers are added.
pub fn names() -> Vec<String> {
    let controls = ('a'..='z').map(|letter| format!("ctrl+{letter}"));
    NAMED
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain(["shift+tab".to_owned()])
        .chain(controls)
        .collect()
}

/// The bytes of a key such as `enter`, `ctrl+c`, `alt+shift+arrow_up` or `x`; none when there is
/// no such key.
pub fn press(key: &str, application_cursor: bool) -> Option<Vec<u8>> {
    const LONGEST: usize = 64;
    if key.len() > LONGEST {
        return None;
    }
    let mut modifiers = Modifiers::default();
    let mut rest = key;
    while let Some((word, after)) = rest
        .split_once(['+', '-'])
        .filter(|(_, after)| !after.is_empty())
    {
        if !modifiers.take(&word.to_lowercase()) {
            break;
        }
        rest = after;
    }
    let mut characters = rest.chars();
    if let (Some(character), None) = (characters.next(), characters.next()) {
        return character_key(character, modifiers);
    }
    let name = rest.to_lowercase().replace(['-', ' '], "_");
    let name = match name.strip_prefix("arrow") {
        Some(direction) => format!("arrow_{}", direction.trim_start_matches('_')),
        None => name,
    };
    let (_, key) = NAMED.iter().find(|(known, _)| *known == name)?;
    Some(named_key(*key, &name, modifiers, application_cursor))
}

fn character_key(character: char, modifiers: Modifiers) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if modifiers.alt {
        bytes.push(0x1b);
    }
    if modifiers.ctrl {
        bytes.push(match character.to_ascii_uppercase() {
            letter @ '@'..='_' => letter as u8 & 0x1f,
            ' ' | '2' => 0,
            '/' | '7' | '-' => 0x1f,
            '?' | '8' => 0x7f,
            digit @ '3'..='6' => digit as u8 - b'3' + 0x1b,
            _ => return None,
        });
    } else {
        let character = if modifiers.shift {
            character.to_uppercase().next().unwrap_or(character)
        } else {
            character
        };
        bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(bytes)
}

fn named_key(key: Key, name: &str, modifiers: Modifiers, application_cursor: bool) -> Vec<u8> {
    let parameter = modifiers.parameter();
    match key {
        Key::Bytes("\t") if modifiers.shift => b"\x1b[Z".to_vec(),
        Key::Bytes(bytes) => {
            let mut sent = if modifiers.alt {
                vec![0x1b]
            } else {
                Vec::new()
            };
            match name {
                "backspace" if modifiers.ctrl => sent.push(0x08),
                "space" if modifiers.ctrl => sent.push(0),
                _ => sent.extend_from_slice(bytes.as_bytes()),
            }
            sent
        }
        Key::Cursor(last) | Key::Function(last) if parameter > 1 => {
            format!("\x1b[1;{parameter}{last}").into_bytes()
        }
        Key::Cursor(last) if !application_cursor => format!("\x1b[{last}").into_bytes(),
        Key::Cursor(last) | Key::Function(last) => format!("\x1bO{last}").into_bytes(),
        Key::Editing(number) if parameter > 1 => format!("\x1b[{number};{parameter}~").into_bytes(),
        Key::Editing(number) => format!("\x1b[{number}~").into_bytes(),
    }
}

/// Text as a terminal pastes it: line ends as the return key, and in brackets where the program
/// asked for that, which it then cannot be tricked out of.
pub fn paste(text: &str, bracketed: bool) -> Vec<u8> {
    let text = text.replace("\r\n", "\n").replace('\n', "\r");
    if !bracketed {
        return text.into_bytes();
    }
    let mut inner = text;
    while inner.contains("\u{1b}[201~") {
        inner = inner.replace("\u{1b}[201~", "");
    }
    format!("\u{1b}[200~{inner}\u{1b}[201~").into_bytes()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MouseKind {
    Move,
    Down,
    Up,
    /// Down and up.
    Click,
    Scroll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MouseModifier {
    Shift,
    Alt,
    Meta,
    Ctrl,
    Control,
}

/// Something done with the mouse.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct MouseEvent {
    #[serde(rename = "type")]
    pub kind: MouseKind,
    /// Counted from 0.
    pub row: u16,
    /// Counted from 0.
    pub col: u16,
    /// 1 is the left button, 2 the middle, 3 the right.
    #[schemars(range(min = 1, max = 5))]
    pub button: Option<u8>,
    /// How many notches to scroll.
    #[schemars(range(min = 1, max = 20))]
    pub amount: Option<u8>,
    /// Where to scroll.
    pub direction: Option<Direction>,
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub modifiers: Vec<MouseModifier>,
}

/// What a program asked to be told of the mouse.
#[derive(Clone, Copy, Debug)]
pub struct MouseModes {
    pub mode: MouseProtocolMode,
    pub encoding: MouseProtocolEncoding,
}

/// The bytes of a mouse event for a program with these modes; empty where it did not ask for
/// events of this kind.
pub fn mouse(event: &MouseEvent, modes: MouseModes) -> Result<Vec<u8>, String> {
    let button = event.button.unwrap_or(1);
    if !(1..=5).contains(&button) {
        return Err("button must be 1 to 5".to_owned());
    }
    let modifiers: u8 = event
        .modifiers
        .iter()
        .map(|modifier| match modifier {
            MouseModifier::Shift => 4,
            MouseModifier::Alt | MouseModifier::Meta => 8,
            MouseModifier::Ctrl | MouseModifier::Control => 16,
        })
        .fold(0, |all, one| all | one);
    // Buttons 1 to 3 are 0 to 2, the wheel is 64 and 65, more buttons go on at 128.
    let code = if button <= 3 {
        button - 1
    } else {
        128 + button - 4
    };
    let mut sent = Vec::new();
    let mut send = |code: u8, is_release: bool| {
        encode(
            &mut sent,
            code | modifiers,
            is_release,
            event,
            modes.encoding,
        )
    };
    let reports_release = !matches!(
        modes.mode,
        MouseProtocolMode::Press | MouseProtocolMode::None
    );
    let reports_motion = matches!(
        modes.mode,
        MouseProtocolMode::ButtonMotion | MouseProtocolMode::AnyMotion
    );
    match event.kind {
        _ if modes.mode == MouseProtocolMode::None => {}
        MouseKind::Down => send(code, false),
        MouseKind::Up if reports_release => send(code, true),
        MouseKind::Click => {
            send(code, false);
            if reports_release {
                send(code, true);
            }
        }
        MouseKind::Move if reports_motion => {
            const MOTION: u8 = 32;
            const NO_BUTTON: u8 = 3;
            send(MOTION + event.button.map_or(NO_BUTTON, |_| code), false);
        }
        MouseKind::Up | MouseKind::Move => {}
        MouseKind::Scroll => {
            let amount = event.amount.unwrap_or(1);
            if !(1..=20).contains(&amount) {
                return Err("amount must be 1 to 20".to_owned());
            }
            let code = if event.direction == Some(Direction::Up) {
                64
            } else {
                65
            };
            for _ in 0..amount {
                send(code, false);
            }
        }
    }
    Ok(sent)
}

fn encode(
    sent: &mut Vec<u8>,
    code: u8,
    is_release: bool,
    event: &MouseEvent,
    encoding: MouseProtocolEncoding,
) {
    let (column, row) = (event.col.saturating_add(1), event.row.saturating_add(1));
    if encoding == MouseProtocolEncoding::Sgr {
        let last = if is_release { 'm' } else { 'M' };
        sent.extend_from_slice(format!("\x1b[<{code};{column};{row}{last}").as_bytes());
        return;
    }
    const RELEASED: u8 = 3;
    let code = if is_release {
        (code & !0b11) | RELEASED
    } else {
        code
    };
    sent.extend_from_slice(b"\x1b[M");
    for number in [u16::from(code), column, row] {
        match encoding {
            MouseProtocolEncoding::Utf8 => {
                let character = char::from_u32(32 + u32::from(number.min(2015))).unwrap_or(' ');
                sent.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => sent.push(32 + u8::try_from(number.min(223)).unwrap_or(223)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sent_as_xterm_sends_them() {
        let check = |key: &str, want: &[u8]| {
            let sent = press(key, false).unwrap_or_else(|| panic!("no key {key}"));
            assert_eq!(
                sent.escape_ascii().to_string(),
                want.escape_ascii().to_string(),
                "{key}"
            );
        };
        check("enter", b"\r");
        check("Enter", b"\r");
        check("ctrl+c", b"\x03");
        check("Ctrl-C", b"\x03");
        check("ctrl+[", b"\x1b");
        check("ctrl+space", b"\0");
        check("Down", b"\x1b[B");
        check("ArrowUp", b"\x1b[A");
        check("arrow_up", b"\x1b[A");
        check("ctrl+right", b"\x1b[1;5C");
        check("F2", b"\x1bOQ");
        check("shift+f5", b"\x1b[15;2~");
        check("page_up", b"\x1b[5~");
        check("delete", b"\x1b[3~");
        check("shift+tab", b"\x1b[Z");
        check("alt+x", b"\x1bx");
        check("shift+a", b"A");
        check("x", b"x");
        check("+", b"+");
        check("ctrl+-", b"\x1f");
        check("é", "é".as_bytes());
        assert_eq!(press("up", true).unwrap(), b"\x1bOA");
        for wrong in ["", "hyper+x", "nokey", "ctrl+", "ctrl+é", "f13"] {
            assert!(press(wrong, false).is_none(), "{wrong}");
        }
        assert!(press(&"ctrl+".repeat(1000), false).is_none());
        for name in names() {
            assert!(press(&name, false).is_some(), "{name}");
        }
    }

    #[test]
    fn a_paste_cannot_leave_its_brackets() {
        assert_eq!(paste("a\nb", true), b"\x1b[200~a\rb\x1b[201~");
        assert_eq!(
            paste("x\u{1b}[20\u{1b}[201~1~rm", true),
            b"\x1b[200~xrm\x1b[201~"
        );
        assert_eq!(paste("a\r\nb", false), b"a\rb");
    }

    #[test]
    fn mouse_events_follow_the_modes() {
        let event = |text: &str| serde_json::from_str::<MouseEvent>(text).unwrap();
        let sgr = MouseModes {
            mode: MouseProtocolMode::AnyMotion,
            encoding: MouseProtocolEncoding::Sgr,
        };
        let old = MouseModes {
            mode: MouseProtocolMode::Press,
            encoding: MouseProtocolEncoding::Default,
        };
        let click = event(r#"{"type":"click","row":1,"col":2,"modifiers":["ctrl"]}"#);
        assert_eq!(mouse(&click, sgr).unwrap(), b"\x1b[<16;3;2M\x1b[<16;3;2m");
        assert_eq!(mouse(&click, old).unwrap(), b"\x1b[M0#\"");
        let scroll = event(r#"{"type":"scroll","row":0,"col":0,"direction":"up","amount":2}"#);
        assert_eq!(mouse(&scroll, sgr).unwrap(), b"\x1b[<64;1;1M\x1b[<64;1;1M");
        let moved = event(r#"{"type":"move","row":65535,"col":65535}"#);
        assert_eq!(mouse(&moved, old).unwrap(), b"");
        assert_eq!(mouse(&moved, sgr).unwrap(), b"\x1b[<35;65535;65535M");
        assert!(
            mouse(
                &event(r#"{"type":"scroll","row":0,"col":0,"amount":99}"#),
                sgr
            )
            .is_err()
        );
        assert!(mouse(&event(r#"{"type":"down","row":0,"col":0,"button":9}"#), sgr).is_err());
    }
}
