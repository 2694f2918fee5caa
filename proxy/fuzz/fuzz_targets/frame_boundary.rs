//! However the bytes of a WebSocket are cut into pieces, the same is known after them; and a close
//! is put in only where a reader of frames takes it for one.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../src/boundary.rs"]
#[allow(dead_code)]
mod boundary;

use boundary::{Boundary, close};

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, cuts) = input;
    let mut whole = Boundary::default();
    whole.see(&bytes);
    let (mut pieces, mut rest) = (Boundary::default(), &bytes[..]);
    for &cut in cuts.iter().cycle().take(bytes.len()) {
        let (piece, later) = rest.split_at(rest.len().min(usize::from(cut)));
        pieces.see(piece);
        rest = later;
    }
    pieces.see(rest);
    assert_eq!(pieces.is_open(), whole.is_open());
    let read = read(&bytes);
    assert_eq!(whole.is_open(), read == Some(false));
    if whole.is_open() {
        let said = [&bytes[..], &close(1001, "bye", None)].concat();
        assert_eq!(self::read(&said), Some(true));
    }
});

/// Whether the last of whole frames is a close, by another way to read them; nothing where they
/// are not whole, or anything follows a close.
fn read(mut bytes: &[u8]) -> Option<bool> {
    let mut closed = false;
    while let Some((&first, rest)) = bytes.split_first() {
        if closed {
            return None;
        }
        let (&second, rest) = rest.split_first()?;
        let (length, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let skip = usize::try_from(length).ok()?.checked_add(mask)?;
        bytes = rest.get(skip..)?;
        closed = first & 0x0f == 8;
    }
    Some(closed)
}
