//! Where in a WebSocket one frame ends and the next begins (RFC 6455, section 5.2).
//!
//! Frames pass through the proxy as they are. It looks at the beginnings alone, in order to know
//! whether a frame of its own, which says why the end comes, would be understood.

/// The longest head, without the mask: two bytes and a length of eight.
const HEAD: usize = 10;
/// Bit of the first byte: the last frame of its message.
const FIN: u8 = 0x80;
/// Bit of the second byte: four bytes of a mask follow the length.
const MASKED: u8 = 0x80;
const MASK: u64 = 4;
const CLOSE: u8 = 8;
/// Of a frame that controls, such as a close.
const CONTROL_BYTES: usize = 125;

/// One direction of a WebSocket.
#[derive(Debug, Clone, Default)]
pub struct Boundary {
    head: [u8; HEAD],
    filled: u8,
    /// Until the next head.
    skip: u64,
    closed: bool,
    /// What has come are no frames.
    lost: bool,
}

/// Both directions of a WebSocket.
#[derive(Debug, Clone, Default)]
pub struct Boundaries {
    /// From the client to its kit.
    pub up: Boundary,
    pub down: Boundary,
}

impl Boundary {
    /// These bytes pass, cut into pieces anywhere.
    pub fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                self.skip -= skipped;
                bytes = &bytes[skipped as usize..];
                continue;
            }
            self.head[usize::from(self.filled)] = bytes[0];
            self.filled += 1;
            bytes = &bytes[1..];
            self.begin();
        }
    }

    /// Whether a frame may be put in here: the one before is whole, and none said that it was the
    /// last.
    pub fn is_open(&self) -> bool {
        !self.lost && !self.closed && self.filled == 0 && self.skip == 0
    }

    /// Where the head is whole, go on to what follows it.
    fn begin(&mut self) {
        if self.filled < 2 {
            return;
        }
        let extended = match self.head[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if usize::from(self.filled) < 2 + extended {
            return;
        }
        let length = match extended {
            0 => u64::from(self.head[1] & !MASKED),
            _ => self.head[2..2 + extended]
                .iter()
                .fold(0, |length, &byte| length << 8 | u64::from(byte)),
        };
        // The highest bit has to be zero: there is no such frame, and nothing is known after it.
        if length > i64::MAX as u64 {
            self.lost = true;
            return;
        }
        let mask = if self.head[1] & MASKED == 0 { 0 } else { MASK };
        self.closed |= self.head[0] & 0x0f == CLOSE;
        self.skip = length + mask;
        self.filled = 0;
    }
}

/// A close frame: to a client as it is, to a server with a mask (RFC 6455, section 5.5.1).
pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(CONTROL_BYTES - 2)];
    let length = 2 + reason.len() as u8;
    let mut frame = vec![FIN | CLOSE, length];
    if let Some(mask) = mask {
        frame[1] |= MASKED;
        frame.extend_from_slice(&mask);
    }
    let payload = code.to_be_bytes().into_iter().chain(reason.iter().copied());
    let mask = mask.unwrap_or_default();
    frame.extend(
        payload
            .zip(mask.into_iter().cycle())
            .map(|(it, key)| it ^ key),
    );
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with its length in as many bytes as asked for.
    fn frame(first: u8, extended: usize, masked: bool, length: usize) -> Vec<u8> {
        let short = match extended {
            0 => u8::try_from(length).expect("short"),
            2 => 126,
            _ => 127,
        };
        let mut frame = vec![first, short | if masked { MASKED } else { 0 }];
        let long = (length as u64).to_be_bytes();
        frame.extend_from_slice(&long[8 - extended..]);
        if masked {
            frame.extend_from_slice(&[1, 2, 3, 4]);
        }
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    #[test]
    fn a_close_is_a_frame_of_its_own() {
        assert_eq!(close(1001, "bye", None), b"\x88\x05\x03\xe9bye");
        let masked = close(1008, "no", Some([1, 2, 3, 4]));
        assert_eq!(masked[..6], [0x88, 0x84, 1, 2, 3, 4]);
        let payload: Vec<u8> = masked[6..]
            .iter()
            .zip([1, 2, 3, 4].iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect();
        assert_eq!(payload, b"\x03\xf0no");
        assert_eq!(close(1000, &"x".repeat(200), None).len(), 2 + CONTROL_BYTES);
        for mask in [None, Some([9; 4])] {
            let mut boundary = Boundary::default();
            let frame = close(1001, "bye", mask);
            boundary.see(&frame[..frame.len() - 1]);
            assert!(boundary.filled == 0 && boundary.skip == 1);
            boundary.see(&frame[frame.len() - 1..]);
            assert!(boundary.closed && !boundary.is_open(), "nothing follows it");
        }
    }

    #[test]
    fn what_is_no_frame_is_never_followed_by_one() {
        let mut boundary = Boundary::default();
        boundary.see(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert!(boundary.lost && !boundary.is_open());
        boundary.see(&frame(0x81, 0, false, 3));
        assert!(!boundary.is_open());
    }

    proptest! {
        #[test]
        fn ends_are_found_in_any_pieces(
            frames in proptest::collection::vec(
                (any::<u8>(), 0usize..3, any::<bool>(), 0usize..126),
                1..20,
            ),
            cuts in proptest::collection::vec(1usize..50, 1..20),
        ) {
            // Up to the first that closes, which is the last one.
            let mut ends = vec![0];
            let mut whole = Vec::new();
            for (first, extended, masked, length) in frames {
                let first = if first & 0x0f == CLOSE { first ^ 1 } else { first };
                whole.extend(frame(first, [0, 2, 8][extended], masked, length));
                ends.push(whole.len());
            }
            let (mut boundary, mut seen) = (Boundary::default(), 0);
            for cut in cuts.iter().cycle() {
                prop_assert_eq!(boundary.is_open(), ends.contains(&seen), "after {}", seen);
                if seen == whole.len() {
                    break;
                }
                let next = whole.len().min(seen + cut);
                boundary.see(&whole[seen..next]);
                seen = next;
            }
            boundary.see(&frame(0x80 | CLOSE, 0, false, 2));
            prop_assert!(!boundary.is_open());
        }
    }
}
