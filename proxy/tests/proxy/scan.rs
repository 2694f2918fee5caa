//! What a scanner of TLS finds.

use std::collections::BTreeSet;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::Rig;

/// What may be offered: all of it has forward secrecy and authenticated encryption.
const CIPHERS: [&str; 9] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// The values of one attribute in all elements of a name, with those of another before them.
fn each(xml: &str, element: &str, attributes: [&str; 2]) -> BTreeSet<String> {
    let begin = format!("<{element} ");
    let elements = xml.split(&begin).skip(1);
    let value = |element: &str, name: &str| {
        let mark = format!("{name}=\"");
        let (_, rest) = element.split_once(&mark).unwrap_or_default();
        rest.split('"').next().unwrap_or_default().to_owned()
    };
    elements
        .map(|rest| {
            let element = rest.split('>').next().unwrap_or_default();
            let [first, second] = attributes.map(|name| value(element, name));
            format!("{first} {second}")
        })
        .collect()
}

#[tokio::test]
async fn a_scanner_finds_nothing_weak() {
    let rig = Rig::start().await;
    let at = rig.bound().https[0];
    let done = tokio::process::Command::new("sslscan")
        .args(["--no-colour", "--xml=-", "--show-sigs", "--ocsp"])
        .arg(format!("--sni-name={}", crate::rig::alias_host("web")))
        .arg(at.to_string())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("sslscan is installed: hoody/setup/packages.sh check");
    let xml = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{xml}");
    let set = |words: &[&str]| -> BTreeSet<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    };
    assert_eq!(
        each(&xml, "protocol", ["version", "enabled"]),
        set(&["2 0", "3 0", "1.0 0", "1.1 0", "1.2 1", "1.3 1"]),
        "{xml}"
    );
    let ciphers = each(&xml, "cipher", ["sslversion", "cipher"]);
    for version in ["TLSv1.2 ", "TLSv1.3 "] {
        assert!(ciphers.iter().any(|it| it.starts_with(version)), "{xml}");
    }
    for cipher in &ciphers {
        let (_, name) = cipher.split_once(' ').expect("two words");
        assert!(CIPHERS.contains(&name), "{cipher}: {xml}");
    }
    for (element, attribute) in [("renegotiation", "supported"), ("heartbleed", "vulnerable")] {
        let found = each(&xml, element, [attribute, "none"]);
        assert_eq!(found, set(&["0 "]), "{element}: {xml}");
    }
    rig.take().stop().await;
}

/// A greeting of TLS 1.2 (RFC 5246, section 7.4.1.2) that would have everything compressed.
fn greeting(host: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let extension = |kind: u16, bytes: &[u8]| [&kind.to_be_bytes()[..], &sized(bytes)].concat();
    let name = sized(&[&[0][..], &sized(host.as_bytes())].concat());
    let extensions = [
        extension(0, &name),
        extension(10, &sized(&[0, 0x1d, 0, 0x17])), // groups
        extension(11, &[1, 0]),                     // uncompressed points
        extension(13, &sized(&[4, 3, 8, 4, 4, 1])), // signatures
    ];
    let body = [
        &[3, 3][..],
        &[7; 32],                          // random
        &[0],                              // no session
        &sized(&[0xc0, 0x2b, 0xc0, 0x2f]), // ECDHE with AES-128-GCM
        &[2, 1, 0],                        // compressed, or else not
        &sized(&extensions.concat()),
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// What the scanner's library cannot ask for: it has no compression.
#[tokio::test]
async fn nothing_is_compressed_and_a_downgrade_shows() {
    let rig = Rig::start().await;
    let mut socket = TcpStream::connect(rig.bound().https[0])
        .await
        .expect("it listens");
    let greeting = greeting(&crate::rig::alias_host("web"));
    socket.write_all(&greeting).await.expect("written");
    let mut hello = [0; 5 + 4 + 2 + 32 + 1];
    socket.read_exact(&mut hello).await.expect("an answer");
    assert_eq!((hello[0], hello[5]), (22, 2), "a greeting: {hello:?}");
    // A server that could do better says so in its random bytes (RFC 8446, section 4.1.3).
    assert_eq!(&hello[35..43], b"DOWNGRD\x01");
    let mut rest = vec![0; usize::from(hello[43]) + 3];
    socket.read_exact(&mut rest).await.expect("all of it");
    assert_eq!(rest.last(), Some(&0), "not compressed");
    rig.take().stop().await;
}
