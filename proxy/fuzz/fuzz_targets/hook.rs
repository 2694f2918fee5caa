//! Any pattern fits a text or not, as the plain reading of it says; and any hooks are read and asked
//! in their order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use routes::hook::{Asked, Hook, Hooks, first_match, fits};

/// Longer patterns and texts are for the product's test: this reading of them takes long.
const SHORT: usize = 24;

/// The same by trying everything.
fn plainly(pattern: &[u8], text: &[u8]) -> bool {
    let Some((&first, rest)) = pattern.split_first() else {
        return text.is_empty();
    };
    if first != b'*' {
        return text.first() == Some(&first) && plainly(rest, &text[1..]);
    }
    let stars = pattern.iter().take_while(|&&byte| byte == b'*').count();
    let rest = &pattern[stars..];
    for cut in 0..=text.len() {
        if stars == 1 && text[..cut].contains(&b'/') {
            return false;
        }
        if plainly(rest, &text[cut..]) {
            return true;
        }
    }
    false
}

fuzz_target!(|given: (&str, &str, &str)| {
    let (pattern, text, hooks) = given;
    let stars = pattern.bytes().filter(|&byte| byte == b'*').count();
    let fit = fits(pattern, text);
    if pattern.len() <= SHORT && text.len() <= SHORT && stars <= 6 {
        assert_eq!(
            fit,
            plainly(pattern.as_bytes(), text.as_bytes()),
            "{pattern:?} {text:?}"
        );
    }
    let Ok(hooks) = serde_json::from_str::<Hooks>(hooks) else {
        return;
    };
    let kept = serde_json::to_string(&hooks).expect("hooks are JSON");
    assert_eq!(serde_json::from_str::<Hooks>(&kept).expect("hooks"), hooks);
    let header = |name: &str| (name != text).then_some(text);
    let asked = Asked {
        method: "GET",
        path: text,
        header: &header,
        group: Some(pattern),
    };
    for list in hooks.values() {
        let met: Vec<&Hook> = list
            .iter()
            .filter(|hook| first_match(std::slice::from_ref(hook), &asked).is_some())
            .collect();
        assert_eq!(first_match(list, &asked), met.first().copied());
    }
});
