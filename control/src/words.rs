//! Things made by chance: ids, secrets, names and colours.

use rand::Rng;
use rand::seq::IndexedRandom;

use routes::Id;

/// A new id: 96 random bits.
pub fn id() -> Id {
    let mut bits = [0; 12];
    rand::rng().fill(&mut bits);
    Id(bits)
}

/// A ULID: milliseconds since 1970, then 80 random bits, in 26 lower-case characters of
/// Crockford's base 32. Later ones sort after earlier ones.
pub fn ulid(now: crate::time::Millis) -> String {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let random: u128 = rand::rng().random::<u128>() >> 48;
    let bits = u128::from(now.cast_unsigned() & 0xffff_ffff_ffff) << 80 | random;
    (0..26)
        .rev()
        .map(|digit| char::from(LETTERS[(bits >> (digit * 5) & 31) as usize]))
        .collect()
}

/// Random characters that need no escaping in a URL: 6 bits each.
pub fn url_safe(length: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = rand::rng();
    (0..length)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}

/// A password a person can copy without mistaking one character for another, with at least one
/// lower-case letter, one capital and one digit. About 119 bits.
pub fn password() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    const LENGTH: usize = 20;
    let mut random = rand::rng();
    loop {
        let text: String = (0..LENGTH)
            .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
            .collect();
        if text.contains(|c: char| c.is_ascii_lowercase())
            && text.contains(|c: char| c.is_ascii_uppercase())
            && text.contains(|c: char| c.is_ascii_digit())
        {
            return text;
        }
    }
}

/// A colour: `#3FA2C0`.
pub fn color() -> String {
    format!("#{:06X}", rand::rng().random_range(0..0x100_0000))
}

/// A name for what its maker did not name: `quiet-otter-41`.
pub fn name() -> String {
    const MOODS: &[&str] = &[
        "agile", "amber", "bold", "brave", "brisk", "calm", "clear", "clever", "cosy", "curious",
        "eager", "early", "fair", "fleet", "fond", "frank", "gentle", "glad", "golden", "keen",
        "kind", "lively", "lucky", "mellow", "merry", "mild", "neat", "nimble", "noble", "patient",
        "plain", "proud", "quick", "quiet", "rapid", "ready", "sharp", "silent", "smart", "snug",
        "solid", "steady", "still", "sunny", "swift", "tidy", "warm", "wise",
    ];
    const ANIMALS: &[&str] = &[
        "badger", "bear", "beaver", "bison", "bunting", "crane", "cuckoo", "curlew", "deer",
        "dormouse", "dove", "eagle", "falcon", "ferret", "finch", "fox", "gecko", "goose", "hare",
        "hedgehog", "heron", "ibis", "jay", "kestrel", "kite", "lark", "lemur", "lynx", "magpie",
        "marten", "mole", "newt", "otter", "owl", "panda", "plover", "puffin", "rabbit", "raven",
        "robin", "seal", "shrew", "siskin", "stork", "swan", "tapir", "vole", "wren",
    ];
    let mut random = rand::rng();
    let mood = MOODS.choose(&mut random).unwrap_or(&"quiet");
    let animal = ANIMALS.choose(&mut random).unwrap_or(&"otter");
    format!("{mood}-{animal}-{}", random.random_range(10..100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_things_have_their_shape() {
        assert_eq!(url_safe(40).len(), 40);
        assert_eq!(password().len(), 20);
        assert_ne!(id(), id());
        let (first, second) = (ulid(1_795_318_200_123), ulid(1_795_318_200_124));
        assert!(first < second && first.len() == 26, "{first} {second}");
        assert_ne!(ulid(7), ulid(7));
        let color = color();
        assert!(color.len() == 7 && color.starts_with('#'), "{color}");
        let name = name();
        assert!(
            name.len() >= 3 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            "{name}"
        );
    }
}
